//! What says that something may have changed on a port.

use std::{io, os::fd::OwnedFd, thread};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with},
};
use tokio::{io::unix::AsyncFd, sync::oneshot};

use super::look::Asked;
use crate::{
    enrich::sock_diag::{Query, read_reply},
    evidence::Protocol,
    kernel::{
        KernelError,
        listens::{Hooked, Listens},
    },
};

/// `SKNLGRP_*` of include/uapi/linux/sock_diag.h (4.2), as a mask for bind.
const TCP_DESTROY: u32 = 0b0101;
const UDP_DESTROY: u32 = 0b1010;

/// A source of events.
pub enum Watch {
    /// sock_diag tells of each socket that is destroyed
    /// (`sock_diag_broadcast_destroy`), to any user. TIME-WAIT ends unsaid, and so
    /// does a port that connect(2) with AF_UNSPEC gives up.
    Destroyed(Destroyed),
    /// A hook that is yet to be loaded: only one who has to wait pays for it.
    ListensLater(Vec<u16>),
    /// A hook that is being loaded, by a thread, so that looks go on.
    ListensSoon(oneshot::Receiver<Result<Hooked, KernelError>>, Vec<u16>),
    /// A hook tells of each TCP socket that begins to listen.
    Listens(Box<Listens>, Vec<u16>),
    /// Nothing tells.
    Nothing,
}

/// What sock_diag tells of.
pub struct Destroyed {
    socket: AsyncFd<OwnedFd>,
    ports: Vec<u16>,
    buffer: Vec<u8>,
}

/// Why nothing more is told.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("the thread that loads the hook has failed")]
    Thread,
}

impl Watch {
    /// What tells of the ports. All are asked the same, of one protocol. Needs a
    /// tokio runtime.
    pub fn of(asked: &[Asked]) -> Self {
        let ports: Vec<u16> = asked.iter().map(Asked::port).collect();
        match asked.first() {
            Some(Asked::Free(at)) => match Destroyed::open(at.protocol, ports) {
                Ok(destroyed) => Self::Destroyed(destroyed),
                Err(error) => {
                    tracing::debug!(%error, "sock_diag does not report destroyed sockets");
                    Self::Nothing
                }
            },
            Some(Asked::Listening(at)) if at.protocol == Protocol::Tcp => Self::ListensLater(ports),
            // No hook that all kernels permit tells of UDP's binds, and none of these tells
            // of other namespaces.
            Some(Asked::Listening(_) | Asked::FreeAgain(_)) | None => Self::Nothing,
        }
    }

    /// Whether events come, so that seldom looks are enough.
    pub fn tells(&self) -> bool {
        matches!(self, Self::Destroyed(_) | Self::Listens(..))
    }

    /// Waits for the next event. May be dropped at any time.
    pub async fn event(&mut self) {
        if let Err(error) = self.next().await {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::debug!(error, "no more notifications");
            *self = Self::Nothing;
        }
    }

    async fn next(&mut self) -> Result<(), Silence> {
        if let Self::ListensLater(ports) = self {
            let (loaded, loading) = oneshot::channel();
            // It ends with the process; nobody waits for it.
            thread::spawn(|| loaded.send(Hooked::attach()));
            *self = Self::ListensSoon(loading, std::mem::take(ports));
        }
        match self {
            Self::Destroyed(destroyed) => destroyed.event().await?,
            Self::ListensSoon(loading, ports) => {
                let hooked = loading.await.map_err(|_| Silence::Thread)??;
                // An event by itself: what came before the hook is not told by it.
                let listens = Box::new(Listens::open(hooked)?);
                *self = Self::Listens(listens, std::mem::take(ports));
            }
            Self::Listens(listens, ports) => listens.any_of(ports).await?,
            Self::ListensLater(_) | Self::Nothing => std::future::pending().await,
        }
        Ok(())
    }
}

impl Destroyed {
    fn open(protocol: Protocol, ports: Vec<u16>) -> io::Result<Self> {
        let groups = if protocol == Protocol::Tcp { TCP_DESTROY } else { UDP_DESTROY };
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        )?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, groups))?;
        // SAFETY: the descriptor is open for as long as the `OwnedFd` lives, and
        // always the same one.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, ports, buffer: vec![0; 16 * 1024] })
    }

    /// Returns when all that was told has been read, and one of the ports was in it.
    async fn event(&mut self) -> io::Result<()> {
        let mut concerned = false;
        loop {
            match recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    concerned |=
                        concerns(self.buffer.get(..length).unwrap_or_default(), &self.ports);
                }
                // More was told than there is room for; it may have been one of them.
                Err(Errno::NOBUFS) => concerned = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if concerned => return Ok(()),
                Err(Errno::AGAIN) => self.socket.readable().await?.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a message is about a socket that was on one of the ports. One that is
/// not understood is: a look does no harm.
fn concerns(message: &[u8], ports: &[u16]) -> bool {
    let mut concerned = false;
    let read = read_reply(message, Query::Tcp, 0, |socket| {
        concerned |= ports.contains(&socket.local.port());
    });
    concerned || read.is_err()
}
