//! The state of a port, with one example of each kind of socket.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    diagnose::words,
    evidence::{Socket, State},
};

/// Sockets of one state on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How many.
    pub count: u32,
    /// One of them.
    pub example: Socket,
    /// Milliseconds until the kernel removes the last of them (a lower bound).
    pub max_remaining_ms: Option<u64>,
}

/// The state of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the condition is met.
    pub met: bool,
    /// The sockets that block the bind; or the listeners; or the sockets on the port that do
    /// not listen on the address.
    pub kinds: BTreeMap<State, Kind>,
    /// Closing connections that block the bind unless they set SO_REUSEADDR, which the kernel
    /// does not report.
    pub passed: u32,
    /// The time until the kernel's own timers have removed the last blocking socket (a lower
    /// bound).
    pub ends_in: Option<Duration>,
}

impl Standing {
    /// Returns how many are in TIME-WAIT, and the remaining time of the last, in milliseconds.
    pub fn time_wait(&self) -> (u32, Option<u64>) {
        let kind = self.kinds.get(&State::TimeWait);
        kind.map_or((0, None), |kind| (kind.count, kind.max_remaining_ms))
    }

    /// Returns the sockets as text; `None` if there are none.
    pub fn words(&self) -> Option<String> {
        let kinds: Vec<_> = self.kinds.iter().map(|(state, kind)| kind.words(*state)).collect();
        (!kinds.is_empty()).then(|| kinds.join("; "))
    }

    /// Adds a socket.
    pub fn add(&mut self, socket: Socket) {
        let remaining = socket.expires_ms;
        let kind = self.kinds.entry(socket.state);
        let kind = kind.or_insert(Kind { count: 0, example: socket, max_remaining_ms: None });
        kind.count = kind.count.saturating_add(1);
        kind.max_remaining_ms = kind.max_remaining_ms.max(remaining);
    }
}

impl Kind {
    fn words(&self, state: State) -> String {
        match (state, self.max_remaining_ms) {
            (State::TimeWait, Some(0)) => format!("{} in {state}, about to end", self.count),
            (State::TimeWait, Some(ms)) => {
                format!("{} in {state}, the last ends in {} s", self.count, words::seconds(ms))
            }
            _ if self.count == 1 => words::socket(&self.example).to_string(),
            _ => format!("{} in {state}, one of them {}", self.count, words::ends(&self.example)),
        }
    }
}
