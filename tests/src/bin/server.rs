//! A small server, for units and for people: `server ADDRESS:PORT [--no-reuseaddr]
//! [--reuseport]`. It answers each connection with `ok` and closes it first, so that TIME-WAIT
//! is on its side. Reports when it listens, to a service manager as well (`sd_notify(3)`), and
//! accepts a socket from one.

#![allow(clippy::print_stdout, reason = "it answers the harness, which reads all of it")]

use std::{
    env,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixDatagram},
    },
};

use anyhow::{Context as _, bail};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, listen, socket_with,
    sockopt::{set_socket_reuseaddr, set_socket_reuseport},
};

fn main() -> anyhow::Result<()> {
    let mut address: Option<SocketAddr> = None;
    let (mut reuseaddr, mut reuseport) = (true, false);
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--no-reuseaddr" => reuseaddr = false,
            "--reuseport" => reuseport = true,
            other => address = Some(other.parse().context("ADDRESS:PORT")?),
        }
    }
    let Some(address) = address else { bail!("ADDRESS:PORT [--no-reuseaddr] [--reuseport]") };
    let listener = match env::var_os("LISTEN_FDS") {
        // SAFETY: the service manager passes descriptor 3 to this process only
        // (sd_listen_fds(3)), and nothing else here has used it.
        Some(_) => unsafe { OwnedFd::from_raw_fd(3) },
        None => {
            println!("starting on {address}");
            listening(address, reuseaddr, reuseport)
                .with_context(|| format!("listen EADDRINUSE {address}"))?
        }
    };
    println!("listening");
    notify_ready()?;
    for connection in TcpListener::from(listener).incoming() {
        // A client that has already disconnected is no reason to exit.
        connection.and_then(|mut connection| connection.write_all(b"ok\n")).ok();
    }
    Ok(())
}

fn listening(address: SocketAddr, reuseaddr: bool, reuseport: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, reuseaddr)?;
    set_socket_reuseport(&socket, reuseport)?;
    bind(&socket, &address)?;
    listen(&socket, 128)?;
    Ok(socket)
}

fn notify_ready() -> anyhow::Result<()> {
    let Ok(to) = env::var("NOTIFY_SOCKET") else { return Ok(()) };
    let to = match to.strip_prefix('@') {
        Some(name) => UnixAddr::from_abstract_name(name)?,
        None => UnixAddr::from_pathname(to)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &to)?;
    Ok(())
}
