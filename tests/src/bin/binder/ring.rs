//! bind and listen through an io_uring (Linux 6.11), by no system call of their own.

use std::{
    io::{Write as _, pipe},
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use io_uring::{
    IoUring, opcode,
    squeue::{Entry, Flags},
    types::Fd,
};
use rustix::{io::Errno, net::addr::SocketAddrArg as _};

pub fn bind(socket: &OwnedFd, address: &SocketAddr) -> Result<(), Errno> {
    // SAFETY: the address is valid until the operation is complete.
    unsafe {
        address.with_sockaddr(|address, length| {
            complete(&opcode::Bind::new(Fd(socket.as_raw_fd()), address.cast(), length).build())
        })
    }
}

pub fn listen(socket: &OwnedFd, backlog: i32) -> Result<(), Errno> {
    complete(&opcode::Listen::new(Fd(socket.as_raw_fd()), backlog).build())
}

/// Binds when a pipe becomes readable: this thread does that on its way back from the write,
/// after the call has ended (`task_work_run`, kernel/task_work.c).
pub fn bind_later(socket: &OwnedFd, address: &SocketAddr) -> Result<(), Errno> {
    const BIND: u64 = 1;
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let (reader, mut writer) = pipe().map_err(errno)?;
    let mut byte = [0u8];
    let mut ring = IoUring::new(2).map_err(errno)?;
    let read = opcode::Read::new(Fd(reader.as_raw_fd()), byte.as_mut_ptr(), 1).build();
    // SAFETY: the address is copied when the operation is submitted, and the byte is valid
    // until both have been completed.
    unsafe {
        address.with_sockaddr(|address, length| {
            let bind = opcode::Bind::new(Fd(socket.as_raw_fd()), address.cast(), length).build();
            let both = [read.flags(Flags::IO_LINK), bind.user_data(BIND)];
            ring.submission().push_multiple(&both).map_err(|_| Errno::NOBUFS)?;
            ring.submit().map_err(errno)
        })?;
    }
    writer.write_all(&[0]).map_err(errno)?;
    loop {
        let result = ring.completion().find(|done| done.user_data() == BIND);
        match result.map(|done| done.result()) {
            Some(result) if result < 0 => return Err(Errno::from_raw_os_error(-result)),
            Some(_) => return Ok(()),
            None => std::thread::yield_now(),
        }
    }
}

/// Submits one operation and waits for its result.
fn complete(operation: &Entry) -> Result<(), Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut ring = IoUring::new(1).map_err(errno)?;
    // SAFETY: the operation points to data of the callers, who wait here.
    unsafe { ring.submission().push(operation) }.map_err(|_| Errno::NOBUFS)?;
    ring.submit_and_wait(1).map_err(errno)?;
    let result = ring.completion().next().ok_or(Errno::IO)?.result();
    if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(()) }
}
