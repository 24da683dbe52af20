//! Reads the options of a socket from the socket itself, through a descriptor copied from its
//! holder (pidfd_getfd(2), 5.6). Netlink does not report the options, and recorded options may
//! have changed since.

use std::{os::fd::OwnedFd, time::Instant};

use rustix::{
    net::sockopt,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use crate::{
    enrich::{holders, host::Host},
    evidence::{Process, Socket, State},
};

/// The most sockets that are read. Each takes a few system calls.
pub const MOST_ASKED: usize = 32;

/// Adds the current options to the sockets that processes have open. Sockets that are bound or
/// listening come first, because a program can change the options of an accepted connection as
/// well. If the options cannot be read, the known ones stay.
pub fn ask(sockets: &mut [Socket]) {
    let holds =
        |socket: &Socket| matches!(socket.state, State::Listen | State::Bound | State::Unconn);
    let mut asked: Vec<_> =
        sockets.iter_mut().filter(|socket| socket.refused != Some(true)).collect();
    asked.sort_by_key(|socket| !holds(socket));
    for socket in asked.into_iter().filter(|socket| !socket.holders.is_empty()).take(MOST_ASKED) {
        let mut holders = socket.holders.iter();
        let own_table = |holder: &Process| holder.fd.filter(|_| holder.tid.is_none());
        let at = holders.find_map(|holder| Some((holder.pid, own_table(holder)?)));
        if let Some((pid, fd)) = at {
            read(socket, pid, fd);
        }
    }
}

/// The same for sockets whose holders are not known: searches the descriptors of all processes,
/// until the deadline.
pub fn ask_holders(host: &Host, sockets: &mut [Socket], deadline: Instant) {
    let inodes = sockets.iter().filter_map(|socket| socket.inode);
    let found = holders::one_of_each(host, inodes, deadline);
    for socket in sockets {
        if let Some(&(pid, fd)) = socket.inode.and_then(|inode| found.get(&inode)) {
            read(socket, pid, fd);
        }
    }
}

/// Reads the options through this descriptor of the socket.
fn read(socket: &mut Socket, pid: u32, fd: u32) {
    let Some(borrowed) = borrow(socket, pid, fd) else { return };
    if let Ok(reuseaddr) = sockopt::socket_reuseaddr(&borrowed) {
        socket.reuseaddr = Some(reuseaddr);
    }
    if let Ok(reuseport) = sockopt::socket_reuseport(&borrowed) {
        socket.reuseport = Some(reuseport);
    }
    if socket.local.is_ipv6()
        && let Ok(v6only) = sockopt::ipv6_v6only(&borrowed)
    {
        socket.v6only = Some(v6only);
    }
}

/// Returns a descriptor of the same socket, if it certainly is the same one.
fn borrow(socket: &Socket, pid: u32, fd: u32) -> Option<OwnedFd> {
    let cookie = socket.cookie?;
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let fd = pidfd_getfd(process, i32::try_from(fd).ok()?, PidfdGetfdFlags::empty()).ok()?;
    (sockopt::socket_cookie(&fd).ok()? == cookie).then_some(fd)
}
