//! More failed binds than anybody wants to hear of, each unlike the last.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use portwatch_tests::op::tcp;
use rustix::net::bind;

use crate::take::prepare;

/// Another address of 127.0.0.0/8 for each number.
pub fn sprayed(port: u16, number: u32) -> SocketAddr {
    let [_, b, c, d] = (number + 1).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, b, c, d), port))
}

/// Another of the `ports` from `first` on.
pub fn next_port(first: SocketAddr, ports: u16, number: u32) -> SocketAddr {
    let step = u16::try_from(number % u32::from(ports)).unwrap_or(0);
    SocketAddr::new(first.ip(), first.port() + step)
}

/// Each bind by a process of its own. Returns a socket that was never bound, and how many
/// failed.
pub fn fork(address: SocketAddr, times: u32) -> anyhow::Result<(OwnedFd, u32)> {
    let socket = prepare(&tcp(&address.to_string()))?;
    let mut refused = 0;
    for _ in 0..times {
        // SAFETY: there is one thread, and the child only makes system calls.
        match unsafe { libc::fork() } {
            0 => {
                let failed = bind(&socket, &address).is_err();
                // SAFETY: ends the child at once, without what the parent would do at its end.
                unsafe { libc::_exit(i32::from(failed)) }
            }
            -1 => return Err(std::io::Error::last_os_error().into()),
            child => {
                let mut status = 0;
                // SAFETY: the child is this process's own, and `status` is writable.
                if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
                    refused += u32::from(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1);
                }
            }
        }
    }
    Ok((socket, refused))
}
