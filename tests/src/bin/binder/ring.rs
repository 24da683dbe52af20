//! bind and listen through an io_uring (Linux 6.11), by no system call of their own.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use io_uring::{IoUring, opcode, squeue::Entry, types::Fd};
use rustix::{io::Errno, net::addr::SocketAddrArg as _};

pub fn bind(socket: &OwnedFd, address: &SocketAddr) -> Result<(), Errno> {
    // SAFETY: the address is there until the operation is complete.
    unsafe {
        address.with_sockaddr(|address, length| {
            complete(&opcode::Bind::new(Fd(socket.as_raw_fd()), address.cast(), length).build())
        })
    }
}

pub fn listen(socket: &OwnedFd, backlog: i32) -> Result<(), Errno> {
    complete(&opcode::Listen::new(Fd(socket.as_raw_fd()), backlog).build())
}

/// Submits one operation and waits for its result.
fn complete(operation: &Entry) -> Result<(), Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut ring = IoUring::new(1).map_err(errno)?;
    // SAFETY: what the operation points to is the callers', who wait here.
    unsafe { ring.submission().push(operation) }.map_err(|_| Errno::NOBUFS)?;
    ring.submit_and_wait(1).map_err(errno)?;
    let result = ring.completion().next().ok_or(Errno::IO)?.result();
    if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(()) }
}
