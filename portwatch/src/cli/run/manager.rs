//! Notifies the service manager (sd_notify(3)), if there is one. As with any other output, the
//! agent does not wait for a manager that does not read.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    future::pending,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{sync::Notify, time::sleep};

use crate::{
    metrics::{Metrics, stage::ENRICH},
    talk::Ear,
};

/// Time until `READY=1` is sent again if the manager has not received it.
const AGAIN: Duration = Duration::from_secs(1);
/// Notifies [`attend`] that a message must be sent again.
static UNHEARD: Notify = Notify::const_new();

/// Sends the state, if there is a manager. Returns whether the manager has received it.
pub fn tell(state: &[NotifyState<'_>]) -> bool {
    let Some(to) = env::var_os("NOTIFY_SOCKET") else { return true };
    let mut text = String::new();
    for line in state {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{line}");
    }
    match send(&to, &text) {
        Ok(()) => true,
        Err(error) => {
            Ear::ServiceManager.missed_one();
            tracing::debug!(%error, "the service manager was not notified");
            error.kind() != io::ErrorKind::WouldBlock
        }
    }
}

/// Sends a message if there is space: a socket's queue is short (net.unix.max_dgram_qlen), and
/// a blocking send would wait for its reader.
fn send(to: &OsStr, text: &str) -> io::Result<()> {
    let address = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsString::from(to))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// Sends `READY=1`: the agent is ready, or a reload has ended. The manager waits for this
/// message, so it is sent again if it was not received ([`attend`]).
pub fn ready() {
    if !tell(&[NotifyState::Ready]) {
        UNHEARD.notify_one();
    }
}

/// Announces a reload: the manager then waits for the next `READY=1`.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => _ = tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the clock could not be read"),
    }
}

/// Sends the messages that are due over time, for as long as it is polled.
pub async fn attend(metrics: &Metrics) {
    let again = async {
        loop {
            UNHEARD.notified().await;
            sleep(AGAIN).await;
            ready();
        }
    };
    tokio::select! {
        () = again => {}
        () = ping(metrics) => {}
    }
}

/// Sends watchdog pings as often as the manager requires (`WATCHDOG_USEC`), as long as waiting
/// failed binds make progress. Without a watchdog it never wakes up.
async fn ping(metrics: &Metrics) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return pending().await;
    };
    loop {
        sleep(interval(limit)).await;
        match metrics.health(Some(ENRICH)) {
            Ok(()) => _ = tell(&[NotifyState::Watchdog]),
            Err(why) => tracing::error!(%why, "a stage is stuck: no ping to the watchdog"),
        }
    }
}

/// Returns half of the limit, as sd_watchdog_enabled(3) recommends.
fn interval(limit: Duration) -> Duration {
    limit / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        // More than any queue of datagrams can hold.
        let refused = (0..100_000).find_map(|_| send(path.as_os_str(), "WATCHDOG=1\n").err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"WATCHDOG=1\n");
        send(path.as_os_str(), "STOPPING=1\n").unwrap();
    }

    #[test]
    fn an_address_without_a_file_is_one_too() {
        let name = format!("portwatch-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1\n").unwrap();
        let mut message = [0; 64];
        assert_eq!(manager.recv(&mut message).unwrap(), 8);
    }
}
