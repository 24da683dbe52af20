//! What is said to the service manager (sd_notify(3)), if there is one.

use std::{future::pending, time::Duration};

use sd_notify::NotifyState;
use tokio::time::sleep;

use crate::metrics::{Metrics, stage::ENRICH};

/// Says it; without a manager nobody hears.
pub fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "no service manager to notify");
    }
}

/// It is ready, or a reload has come to its end.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins: the manager waits for the next `READY=1`.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no time to tell"),
    }
}

/// Pings as often as the manager wants (`WATCHDOG_USEC`), for as long as refusals that
/// wait are looked into. Without a watchdog there is nothing to wake up for.
pub async fn ping(metrics: &Metrics) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return pending().await;
    };
    loop {
        sleep(interval(limit)).await;
        match metrics.health(Some(ENRICH)) {
            Ok(()) => tell(&[NotifyState::Watchdog]),
            Err(why) => tracing::error!(why, "not well, and the service manager is not told so"),
        }
    }
}

/// Half of the limit, as sd_watchdog_enabled(3) recommends.
fn interval(limit: Duration) -> Duration {
    limit / 2
}
