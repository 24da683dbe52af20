//! More failed binds than anybody wants to hear of, each unlike the last.

use std::net::{Ipv4Addr, SocketAddr};

use portwatch_tests::op::tcp;
use rustix::{
    net::bind,
    thread::{UnshareFlags, unshare_unsafe},
};

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

/// Asks in a process of its own, so many times, and returns how often the answer was yes.
pub fn fork(times: u32, is_refused: impl Fn() -> bool) -> anyhow::Result<u32> {
    let mut refused = 0;
    for _ in 0..times {
        // SAFETY: there is one thread, so the child may do what it likes.
        match unsafe { libc::fork() } {
            0 => {
                let failed = is_refused();
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
    Ok(refused)
}

/// Whether a TCP socket cannot have the address.
pub fn is_refused(address: SocketAddr) -> bool {
    prepare(&tcp(&address.to_string())).is_ok_and(|socket| bind(&socket, &address).is_err())
}

/// The same in a user and network namespace that is made for it, with a server at the
/// address.
pub fn is_refused_in_a_namespace(address: SocketAddr) -> bool {
    // SAFETY: namespaces are left; no memory or descriptor is shared less.
    let alone = unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) };
    let server = alone.is_ok().then(|| std::net::TcpListener::bind(address));
    matches!(server, Some(Ok(_))) && is_refused(address)
}
