//! What the command was refused: a sink beside the one that tells of it.

use std::{io, sync::Arc};

use crate::{
    enrich::netns::again::Known,
    event::{Event, Record},
    evidence::{Failure, State},
    shared::Shared,
    sinks::Sink,
};

/// What is kept; a command that fails on more starts again when these are free.
const MOST: usize = 64;

/// A bind that failed, and what is known of who had the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked of the kernel.
    pub failure: Failure,
    /// The network namespace.
    pub netns: Known,
    /// `SO_REUSEADDR` of the listener, which all its connections have as well: of
    /// those the kernel tells it to nobody.
    pub reuseaddr: Option<bool>,
}

/// All that were refused so far, each once.
#[derive(Clone, Default)]
pub struct Refused(Arc<Shared<Vec<Refusal>>>);

impl Refused {
    /// What is there so far.
    pub fn all(&self) -> Vec<Refusal> {
        self.0.get()
    }
}

impl Sink for Refused {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Record::BindFailure(event) = record else { return Ok(()) };
        let refusal = refusal(event);
        let all = self.0.get();
        // For port 0 there is no port to wait for.
        if refusal.failure.port != 0 && all.len() < MOST && !all.contains(&refusal) {
            self.0.push(refusal);
        }
        Ok(())
    }
}

fn refusal(event: &Event) -> Refusal {
    let listener = event.sockets.iter().find(|socket| socket.state == State::Listen);
    Refusal {
        // Each socket has a cookie of its own.
        failure: Failure { cookie: None, ..event.failure.clone() },
        netns: Known { inode: event.netns.inode, cookie: event.netns.cookie },
        reuseaddr: listener.and_then(|listener| listener.reuseaddr),
    }
}
