//! What says that something may have changed on a port.

use std::{io, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with},
};
use tokio::io::unix::AsyncFd;

use super::look::{Asked, Condition};
use crate::{
    enrich::sock_diag::{Query, read_reply},
    evidence::Protocol,
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
    /// Nothing tells.
    Nothing,
}

/// What sock_diag tells of.
pub struct Destroyed {
    socket: AsyncFd<OwnedFd>,
    ports: Vec<u16>,
    buffer: Vec<u8>,
}

impl Watch {
    /// For ports that are to come free: begins at once. Needs a tokio runtime.
    pub fn destroyed(asked: &[Asked]) -> Self {
        let freed = |asked: &Asked| matches!(asked.condition, Condition::Free { .. });
        if !asked.iter().any(freed) {
            return Self::Nothing;
        }
        Destroyed::open(asked).map_or_else(
            |error| {
                tracing::debug!(%error, "sock_diag tells of no destroyed sockets");
                Self::Nothing
            },
            Self::Destroyed,
        )
    }

    /// Whether events come, so that seldom looks are enough.
    pub fn tells(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    /// Waits for the next event. May be dropped at any time.
    pub async fn event(&mut self) {
        let heard = match self {
            Self::Destroyed(destroyed) => destroyed.event().await,
            Self::Nothing => std::future::pending().await,
        };
        if let Err(error) = heard {
            tracing::debug!(%error, "no more is told");
            *self = Self::Nothing;
        }
    }
}

impl Destroyed {
    fn open(asked: &[Asked]) -> io::Result<Self> {
        let groups = asked.iter().fold(0, |groups, asked| {
            groups | if asked.protocol == Protocol::Tcp { TCP_DESTROY } else { UDP_DESTROY }
        });
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        )?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, groups))?;
        let ports = asked.iter().map(|asked| asked.port).collect();
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
