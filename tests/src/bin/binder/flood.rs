//! Many failed binds, each unlike the last.

use std::{
    io::{Read as _, Write as _, pipe},
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::ensure;
use portwatch_tests::op::tcp;
use rustix::{
    net::bind,
    thread::{Uid, UnshareFlags, set_thread_uid, unshare_unsafe},
};

use crate::take::prepare;

/// Returns another address of 127.0.0.0/8 for each number.
pub fn sprayed(port: u16, number: u32) -> SocketAddr {
    let [_, b, c, d] = (number + 1).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, b, c, d), port))
}

/// Returns another of the `ports` from `first` on.
pub fn next_port(first: SocketAddr, ports: u16, number: u32) -> SocketAddr {
    let step = u16::try_from(number % u32::from(ports)).unwrap_or(0);
    SocketAddr::new(first.ip(), first.port() + step)
}

/// Calls `is_refused` this many times, in a process of its own each, numbered from 1 on, and
/// returns how often it was true.
pub fn fork(times: u32, is_refused: impl Fn(u32) -> bool) -> anyhow::Result<u32> {
    let mut refused = 0;
    for number in 1..=times {
        // SAFETY: there is only one thread, so the child may run any code.
        match unsafe { libc::fork() } {
            0 => {
                let failed = is_refused(number);
                // SAFETY: ends the child at once, without the parent's clean-up.
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

/// Returns whether a TCP socket cannot bind the address.
pub fn is_refused(address: SocketAddr) -> bool {
    prepare(&tcp(&address.to_string())).is_ok_and(|socket| bind(&socket, &address).is_err())
}

/// The same in a new user and network namespace, with a server at the address.
pub fn is_refused_in_a_namespace(address: SocketAddr) -> bool {
    // SAFETY: namespaces change; the sharing of memory and descriptors does not.
    let alone = unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) };
    let server = alone.is_ok().then(|| std::net::TcpListener::bind(address));
    matches!(server, Some(Ok(_))) && is_refused(address)
}

/// The user that is 0 in the namespace that root makes.
const FIRST_USER: u32 = 100_000;

/// Binds as this many users of a new user namespace, at once. Returns how many binds failed.
pub fn users(address: SocketAddr, users: u32, times: u32) -> anyhow::Result<u32> {
    let (mut mapped, map) = pipe()?;
    let (mut made, make) = pipe()?;
    // SAFETY: there is only one thread, so the child may run any code.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(map);
        // SAFETY: a namespace changes; the sharing of memory and descriptors does not.
        let alone = unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.is_ok();
        drop(make);
        let mapped = mapped.read(&mut [0]).is_ok_and(|length| length == 1);
        let all = alone && mapped && all_are_refused(address, users, times).unwrap_or(false);
        // SAFETY: ends the child at once, without the parent's clean-up.
        unsafe { libc::_exit(i32::from(all)) }
    }
    ensure!(child > 0, std::io::Error::last_os_error());
    drop(make);
    made.read_to_end(&mut Vec::new())?;
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{map}"), format!("0 {FIRST_USER} 65536"))?;
    }
    (&map).write_all(&[0])?;
    let mut status = 0;
    // SAFETY: the child is this process's own, and `status` is writable.
    ensure!(unsafe { libc::waitpid(child, &raw mut status, 0) } == child, "nobody to wait for");
    ensure!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1, "not all were refused");
    Ok(users * times)
}

/// Each user in a process of its own, one after the other.
fn all_are_refused(address: SocketAddr, users: u32, times: u32) -> anyhow::Result<bool> {
    let refused = fork(users, |user| {
        let socket = prepare(&tcp(&address.to_string()));
        set_thread_uid(Uid::from_raw(user)).is_ok()
            && socket.is_ok_and(|socket| (0..times).all(|_| bind(&socket, &address).is_err()))
    })?;
    Ok(refused == users)
}
