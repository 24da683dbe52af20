//! What is said to the service manager (sd_notify(3)), if there is one. It is a reader like
//! any other: one that does not read is not waited for.

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

/// How soon `READY=1` is said again if the manager has not taken it.
const AGAIN: Duration = Duration::from_secs(1);
/// There is one to be said again.
static UNHEARD: Notify = Notify::const_new();

/// Says it; without a manager nobody hears. Whether it was taken.
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

/// Sends a message if there is room for it: a socket takes few (net.unix.max_dgram_qlen),
/// and a blocking send waits until its owner reads.
fn send(to: &OsStr, text: &str) -> io::Result<()> {
    let address = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsString::from(to))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// It is ready, or a reload has come to its end. The manager waits for this, so it is said
/// again if it was not taken ([`attend`]).
pub fn ready() {
    if !tell(&[NotifyState::Ready]) {
        UNHEARD.notify_one();
    }
}

/// A reload begins: the manager waits for the next `READY=1`.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => _ = tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the clock could not be read"),
    }
}

/// Sees to what is to be said with time, for as long as it is polled.
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

/// Pings as often as the manager wants (`WATCHDOG_USEC`), for as long as refusals that
/// wait are looked into. Without a watchdog there is nothing to wake up for.
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

/// Half of the limit, as sd_watchdog_enabled(3) recommends.
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
        // More than any queue of datagrams has room for.
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
