//! What a listener leaves behind.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use portwatch_tests::op::Leaving;
use rustix::net::accept;

/// Uses a listener; gives the ends of connections that are to stay open.
pub fn leave(
    listener: &OwnedFd,
    address: SocketAddr,
    leaving: Leaving,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut kept = Vec::new();
    for _ in 0..leaving.connections() {
        let mut client = TcpStream::connect(address)?;
        let mut server = TcpStream::from(accept(listener.as_fd())?);
        match leaving {
            // The side that closes first keeps the connection in TIME-WAIT, so
            // this side closes first, and the client when it has seen the end.
            Leaving::TimeWait(_) => {
                drop(server);
                client.read_to_end(&mut Vec::new())?;
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

/// Waits until the connections are in the state that they are to be left in.
pub fn wait_for_rows(port: u16, leaving: Leaving) -> anyhow::Result<()> {
    let state = match leaving {
        Leaving::Nothing | Leaving::Accepted(_) => return Ok(()),
        Leaving::TimeWait(_) => "06",
        Leaving::FinWait2(_) => "05",
        Leaving::FinWait1(_) => "04",
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while rows(port, state)? < leaving.connections() {
        anyhow::ensure!(Instant::now() < deadline, "{leaving:?} was not reached");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Counts the rows of /proc/net/tcp and tcp6 on `port` in a state, by its number
/// there.
fn rows(port: u16, wanted: &str) -> anyhow::Result<u32> {
    let local_end = format!(":{port:04X}");
    let mut rows = 0;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        for row in fs::read_to_string(table)?.lines() {
            let mut columns = row.split_whitespace().skip(1);
            let local = columns.next().unwrap_or_default();
            let state = columns.nth(1).unwrap_or_default();
            rows += u32::from(local.ends_with(&local_end) && state == wanted);
        }
    }
    Ok(rows)
}
