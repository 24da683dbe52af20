//! The processes and connections of a busy server, for the benchmarks: `crowd PROCESSES FILES
//! CONNECTIONS TIME-WAIT`. Prints `ready` when all exist, and stays until stdin ends.

#![allow(clippy::print_stdout, reason = "it answers the harness, which reads all of it")]

use std::{
    fs::File,
    io::{self, Read as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::exit,
};

use anyhow::Context as _;

/// Connections of one process: two descriptors each, below the usual limit.
const CONNECTIONS_EACH: u32 = 4_000;

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let mut next =
        || numbers.next().context("PROCESSES FILES CONNECTIONS TIME-WAIT")?.context("no number");
    let (processes, files, connections, time_wait) = (next()?, next()?, next()?, next()?);
    // Every child exits when this end of the pipe is closed for any reason.
    let (mut waiting, keep) = io::pipe()?;
    let (mut told, tell) = io::pipe()?;
    let mut children = 0;
    let mut child = |work: &dyn Fn() -> anyhow::Result<Vec<OwnedFd>>| -> anyhow::Result<()> {
        children += 1;
        // SAFETY: there is only one thread, so the child may run any code.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error().into()),
            0 => {
                // SAFETY: the child has no other use for the descriptor.
                unsafe { libc::close(std::os::fd::AsRawFd::as_raw_fd(&keep)) };
                let mine = work();
                let done = io::Write::write_all(&mut &tell, &[u8::from(mine.is_ok())]);
                if done.is_ok() && mine.is_ok() {
                    let _ = waiting.read(&mut [0]);
                }
                exit(0);
            }
            _ => Ok(()),
        }
    };
    for first in (0..connections).step_by(CONNECTIONS_EACH as usize) {
        let number = first / CONNECTIONS_EACH;
        let many = CONNECTIONS_EACH.min(connections - first);
        child(&|| connect(number, many))?;
    }
    for number in 0..time_wait.div_ceil(CONNECTIONS_EACH) {
        let many = CONNECTIONS_EACH.min(time_wait - number * CONNECTIONS_EACH);
        child(&|| leave_time_wait(number, many))?;
    }
    for _ in 0..processes {
        child(&|| open_files(files))?;
    }
    let mut said = vec![0; children];
    told.read_exact(&mut said)?;
    anyhow::ensure!(said.iter().all(|&good| good == 1), "a child failed");
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(keep);
    Ok(())
}

/// Half plain files, half sockets.
fn open_files(files: u32) -> anyhow::Result<Vec<OwnedFd>> {
    let mut open: Vec<OwnedFd> = Vec::new();
    for _ in 0..files / 4 {
        let (one, other) = UnixStream::pair()?;
        open.extend([one.into(), other.into(), File::open("/dev/null")?.into()]);
        open.push(File::open("/dev/null")?.into());
    }
    Ok(open)
}

/// Both ends of connections, on an address of this child's own.
fn connect(number: u32, many: u32) -> anyhow::Result<Vec<OwnedFd>> {
    let listener = TcpListener::bind((format!("127.0.1.{}", number + 1), 0))?;
    let mut open: Vec<OwnedFd> = Vec::new();
    for _ in 0..many {
        let client = TcpStream::connect(listener.local_addr()?)?;
        open.extend([client.into(), listener.accept()?.0.into()]);
    }
    open.push(listener.into());
    Ok(open)
}

/// The accepting side closes first, so the TIME-WAIT entries are on the listener's port.
fn leave_time_wait(number: u32, many: u32) -> anyhow::Result<Vec<OwnedFd>> {
    let listener = TcpListener::bind((format!("127.0.2.{}", number + 1), 0))?;
    let mut clients = Vec::new();
    for _ in 0..many {
        clients.push(TcpStream::connect(listener.local_addr()?)?);
        drop(listener.accept()?);
    }
    for mut client in clients {
        client.read_to_end(&mut Vec::new())?;
    }
    Ok(vec![listener.into()])
}
