//! Connections that a listener leaves behind.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use portwatch_tests::{op::Leaving, patience};
use rustix::net::accept;

/// States by their numbers in /proc/net/tcp (include/net/tcp_states.h).
const FIN_WAIT_1: &str = "04";
const FIN_WAIT_2: &str = "05";
const TIME_WAIT: &str = "06";

/// Uses a listener; returns the ends of connections that are to stay open.
pub fn leave(
    listener: &OwnedFd,
    address: SocketAddr,
    leaving: Leaving,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut kept = Vec::new();
    let mut ends = BTreeSet::new();
    while ends.len() < leaving.connections() as usize {
        let mut client = TcpStream::connect(address)?;
        let mut server = TcpStream::from(accept(listener.as_fd())?);
        // A client that reuses a port replaces the rest of its earlier connection.
        ends.insert(client.local_addr()?);
        match leaving {
            // The side that closes first keeps the connection in TIME-WAIT, so this side
            // closes first, and the client after it has seen the end.
            Leaving::TimeWait(_) => {
                drop(server);
                client.read_to_end(&mut Vec::new())?;
                // Before Linux 6.10 a FIN that arrives while the kernel replaces the socket by
                // the minisock can miss both, and TIME-WAIT is never reached.
                let client = client.local_addr()?.port();
                wait_for(leaving, || Ok(rows(address.port(), Some(client), FIN_WAIT_2)? == 1))?;
            }
            Leaving::FinWait1(_) => {
                server.set_nonblocking(true)?;
                while server.write(&[0; 4096]).is_ok() {}
                kept.push(client);
            }
            Leaving::FinWait2(_) => kept.push(client),
            Leaving::Accepted(_) | Leaving::Nothing => kept.extend([client, server]),
        }
    }
    Ok(kept)
}

/// Waits until the connections are in the wanted state.
pub fn wait_for_rows(port: u16, leaving: Leaving) -> anyhow::Result<()> {
    let state = match leaving {
        Leaving::Nothing | Leaving::Accepted(_) => return Ok(()),
        Leaving::TimeWait(_) => TIME_WAIT,
        Leaving::FinWait2(_) => FIN_WAIT_2,
        Leaving::FinWait1(_) => FIN_WAIT_1,
    };
    wait_for(leaving, || Ok(rows(port, None, state)? >= leaving.connections()))
}

fn wait_for(
    leaving: Leaving,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    // Before the test's own time limit, so that it gets the reason.
    let deadline = Instant::now() + patience() / 2;
    while !is_so()? {
        anyhow::ensure!(Instant::now() < deadline, "{leaving:?} was not reached");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Counts the entries of /proc/net/tcp and tcp6 on `port` in a state, or only those to the
/// port `to` if it is given.
fn rows(port: u16, to: Option<u16>, wanted: &str) -> anyhow::Result<u32> {
    let (local_end, remote_end) = (format!(":{port:04X}"), to.map(|to| format!(":{to:04X}")));
    let mut rows = 0;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        for row in fs::read_to_string(table)?.lines() {
            let mut columns = row.split_whitespace().skip(1);
            let local = columns.next().unwrap_or_default();
            let remote = columns.next().unwrap_or_default();
            let state = columns.next().unwrap_or_default();
            let is_to = remote_end.as_ref().is_none_or(|end| remote.ends_with(end));
            rows += u32::from(local.ends_with(&local_end) && is_to && state == wanted);
        }
    }
    Ok(rows)
}
