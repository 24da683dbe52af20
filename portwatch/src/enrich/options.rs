//! Reads the options of a socket from the socket itself, through a descriptor copied from its
//! holder (pidfd_getfd(2), 5.6). Netlink does not report the options, and recorded options may
//! have changed since.

use std::os::fd::OwnedFd;

use rustix::{
    net::sockopt,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use crate::evidence::{Socket, State};

/// The most sockets that are read. Each takes a few system calls.
const MOST_ASKED: usize = 32;

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
        let Some(borrowed) = borrow(socket) else { continue };
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
}

/// Returns a descriptor of the same socket, if it certainly is the same one.
fn borrow(socket: &Socket) -> Option<OwnedFd> {
    let cookie = socket.cookie?;
    let (pid, fd) = socket
        .holders
        .iter()
        .find_map(|holder| Some((holder.pid, holder.fd.filter(|_| holder.tid.is_none())?)))?;
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let fd = pidfd_getfd(process, i32::try_from(fd).ok()?, PidfdGetfdFlags::empty()).ok()?;
    (sockopt::socket_cookie(&fd).ok()? == cookie).then_some(fd)
}
