//! Creates a socket and takes its port.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use portwatch_tests::op::{Leaving, Socket, Stage};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, bind, listen, sockopt},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::ring;

/// A system call, or its replacement, with its second argument.
type Call<T> = fn(&OwnedFd, &T) -> Result<(), Errno>;

pub const BACKLOG: i32 = 16;

/// A socket with its options set.
pub fn prepare(wanted: &Socket) -> anyhow::Result<OwnedFd> {
    let family = if wanted.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = if wanted.inheritable { SocketFlags::empty() } else { SocketFlags::CLOEXEC };
    let socket = wanted.protocol.socket(family, flags)?;
    sockopt::set_socket_reuseaddr(&socket, wanted.reuseaddr)?;
    sockopt::set_socket_reuseport(&socket, wanted.reuseport)?;
    if wanted.address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, wanted.v6only)?;
    }
    if wanted.on_loopback {
        bind_to_loopback(&socket)?;
    }
    if let Some(pid) = wanted.bound_beside {
        let there = File::open(format!("/proc/{pid}/ns/net"))?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    Ok(socket)
}

fn bind_to_loopback(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: the option's value is a string, and its size is given.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            c"lo".as_ptr().cast(),
            2,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub fn take_port(socket: &OwnedFd, wanted: &Socket) -> Result<(), (Stage, Errno)> {
    let (bind, listen): (Call<SocketAddr>, Call<i32>) = match wanted.through_ring {
        false => (|socket, address| bind(socket, address), |socket, most| listen(socket, *most)),
        true => (ring::bind, |socket, most| ring::listen(socket, *most)),
    };
    bind(socket, &wanted.address).map_err(|errno| (Stage::Bind, errno))?;
    if wanted.listen || wanted.leaving != Leaving::Nothing {
        listen(socket, &BACKLOG).map_err(|errno| (Stage::Listen, errno))?;
    }
    Ok(())
}
