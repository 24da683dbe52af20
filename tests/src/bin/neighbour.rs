//! Failed binds of others, which must not affect a test: `neighbour [RATE]`, in a network
//! namespace of its own. A server holds a port; one process fails to bind it RATE times a
//! second (2,000), each time at another address of 127/8, and 20 short-lived processes a
//! second fail once. It exits when its stdin ends.

#![allow(clippy::print_stdout, reason = "it answers the harness, which reads all of it")]

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::exit,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use portwatch_tests::netns::enter_fresh;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// No test has this port.
const PORT: u16 = 41_874;
const TICK: Duration = Duration::from_millis(50);

fn main() -> anyhow::Result<()> {
    let rate: u32 = match std::env::args().nth(1) {
        Some(rate) => rate.parse().context("RATE")?,
        None => 2_000,
    };
    // All threads are created later, in this thread's namespace.
    enter_fresh();
    let _server = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    thread::spawn(|| {
        io::stdin().read_to_end(&mut Vec::new()).ok();
        exit(0);
    });
    println!("ready");
    let begin = Instant::now();
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (mut ticks, mut address) = (0, u32::from(Ipv4Addr::LOCALHOST));
    loop {
        for _ in 0..rate * u32::try_from(TICK.as_millis())? / 1_000 {
            address = if address == u32::from(Ipv4Addr::new(127, 255, 255, 254)) {
                u32::from(Ipv4Addr::LOCALHOST)
            } else {
                address + 1
            };
            let refused = bind(&socket, &SocketAddr::from((Ipv4Addr::from(address), PORT)));
            anyhow::ensure!(refused.is_err(), "the port is held");
        }
        crash()?;
        ticks += 1;
        thread::sleep((begin + TICK * ticks).saturating_duration_since(Instant::now()));
    }
}

/// A process that cannot bind its port, and exits.
fn crash() -> anyhow::Result<()> {
    // SAFETY: the child makes three system calls.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).is_err();
            // SAFETY: nothing of the parent needs clean-up.
            unsafe { libc::_exit(i32::from(refused)) }
        }
        child => {
            // SAFETY: the child is this process's.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(())
        }
    }
}
