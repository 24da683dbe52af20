//! Events that report a possible change on a port.

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
    /// sock_diag reports each socket that is destroyed (`sock_diag_broadcast_destroy`), to any
    /// user. The end of TIME-WAIT is not reported, nor a port that connect(2) with AF_UNSPEC
    /// releases.
    Destroyed(Destroyed),
    /// A hook that is not loaded yet: it is loaded only if there is something to wait for.
    ListensLater(Vec<u16>),
    /// A hook that a thread is loading, while checks continue.
    ListensSoon(oneshot::Receiver<Result<Hooked, KernelError>>, Vec<u16>),
    /// A hook reports each TCP socket that starts to listen.
    Listens(Box<Listens>, Vec<u16>),
    /// No events.
    Nothing,
}

/// The events of sock_diag.
pub struct Destroyed {
    socket: AsyncFd<OwnedFd>,
    ports: Vec<u16>,
    buffer: Vec<u8>,
}

/// Why no more events arrive.
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
    /// Opens the source of events for the ports. All have the same condition, of one protocol.
    /// Needs a tokio runtime.
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
            // No hook that all kernels permit reports UDP binds, and no source reports other
            // namespaces.
            Some(Asked::Listening(_) | Asked::FreeAgain(_)) | None => Self::Nothing,
        }
    }

    /// Returns whether events arrive, so that rare checks are enough.
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
            // It ends with the process; nothing joins it.
            thread::spawn(|| loaded.send(Hooked::attach()));
            *self = Self::ListensSoon(loading, std::mem::take(ports));
        }
        match self {
            Self::Destroyed(destroyed) => destroyed.event().await?,
            Self::ListensSoon(loading, ports) => {
                let hooked = loading.await.map_err(|_| Silence::Thread)??;
                // Counts as an event: the hook does not report what happened before it was
                // attached.
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
        // SAFETY: the descriptor is open as long as the `OwnedFd` lives, and always the same
        // one.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, ports, buffer: vec![0; 16 * 1024] })
    }

    /// Returns after all pending events have been read, if one of the ports was among them.
    async fn event(&mut self) -> io::Result<()> {
        let mut concerned = false;
        loop {
            match recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    concerned |=
                        concerns(self.buffer.get(..length).unwrap_or_default(), &self.ports);
                }
                // Events were lost; the port may have been among them.
                Err(Errno::NOBUFS) => concerned = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if concerned => return Ok(()),
                Err(Errno::AGAIN) => self.socket.readable().await?.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Returns whether a message is about a socket that was on one of the ports. An invalid
/// message counts: an extra check does no harm.
fn concerns(message: &[u8], ports: &[u16]) -> bool {
    let mut concerned = false;
    let read = read_reply(message, Query::Tcp, 0, |socket| {
        concerned |= ports.contains(&socket.local.port());
    });
    concerned || read.is_err()
}
