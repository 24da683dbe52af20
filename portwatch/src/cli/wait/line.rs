//! One port's result as JSON.

use std::net::IpAddr;

use serde::Serialize;

use crate::{
    enrich::host::Host,
    wait::{
        Port, State,
        look::{Asked, Standing},
    },
};

/// A flat object, one per port.
#[derive(Debug, Serialize)]
pub struct Line {
    port: u16,
    /// `null` means all addresses.
    address: Option<IpAddr>,
    /// The name of the interface in the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    free: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listening: Option<bool>,
    /// Time until the condition was met, or until the end.
    pub waited_ms: u64,
    /// Why the condition is not met.
    in_the_way: Option<String>,
    /// The listening socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<String>,
    time_wait: TimeWait,
    /// The assumptions of the answer.
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TimeWait {
    count: u32,
    max_remaining_ms: Option<u64>,
}

impl Line {
    /// Creates the line for `port` in `state`.
    pub fn of(port: &Port, state: &State, host: &Host) -> Self {
        let Port { asked, standing, met_after } = port;
        let waited = met_after.unwrap_or(state.waited);
        let (count, max_remaining_ms) = standing.time_wait();
        let listens = !asked.is_free();
        let (address, device) = asked.place();
        Self {
            port: asked.port(),
            address,
            device: device.and_then(|device| device.name.clone()),
            protocol: asked.protocol().into(),
            free: (!listens).then_some(standing.met),
            listening: listens.then_some(standing.met),
            waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            in_the_way: (!standing.met).then(|| in_the_way(asked, standing)),
            listener: standing.words().filter(|_| listens && standing.met),
            time_wait: TimeWait { count, max_remaining_ms },
            notes: notes(asked, standing, host),
        }
    }
}

/// Returns why the condition is not met, as text.
pub fn in_the_way(asked: &Asked, standing: &Standing) -> String {
    let words = standing.words();
    match (asked.is_free(), words) {
        (true, words) => words.unwrap_or_default(),
        (false, Some(others)) => format!("no socket is listening; found {others}"),
        (false, None) => "no socket is listening".to_owned(),
    }
}

fn notes(asked: &Asked, standing: &Standing, host: &Host) -> Vec<String> {
    let mut notes = Vec::new();
    if standing.passed > 0 {
        notes.push(format!(
            "{} sockets of earlier connections remain on the port; SO_REUSEADDR ignores them only \
             if the listener that accepted them set it too",
            standing.passed
        ));
    }
    if asked.is_tcp() && asked.is_free() && standing.met && !host.shows_bound_sockets() {
        notes.push(
            "before Linux 6.8 the kernel does not list sockets that are bound but not listening; \
             one may block the bind"
                .to_owned(),
        );
    }
    notes
}
