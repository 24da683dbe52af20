//! What the command was refused: a sink beside the one that tells of it.

use std::{io, sync::Arc};

use crate::{
    enrich::netns::again::Known,
    event::{Event, Record},
    evidence::{Failure, State},
    shared::Shared,
    sinks::Sink,
    wait::look::{Asked, FailedBind},
};

/// What is kept; a command that fails on more starts again when these are free.
const MOST: usize = 64;

/// What is to be asked of the ports that were refused so far, each once.
#[derive(Clone, Default)]
pub struct Refused(Arc<Shared<Vec<Asked>>>);

impl Refused {
    /// What is there so far.
    pub fn all(&self) -> Vec<Asked> {
        self.0.get()
    }
}

impl Sink for Refused {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Record::BindFailure(event) = record else { return Ok(()) };
        let again = again(event);
        let all = self.0.get();
        // For port 0 there is no port to wait for.
        if again.port() != 0 && all.len() < MOST && !all.contains(&again) {
            self.0.push(again);
        }
        Ok(())
    }
}

/// Whether the bind that failed would succeed now.
fn again(event: &Event) -> Asked {
    let listener = event.sockets.iter().find(|socket| socket.state == State::Listen);
    Asked::FreeAgain(Box::new(FailedBind {
        // Each socket has a cookie of its own.
        failure: Failure { cookie: None, ..event.failure.clone() },
        reuseaddr: listener.and_then(|listener| listener.reuseaddr),
        netns: Known { inode: event.netns.inode, cookie: event.netns.cookie },
    }))
}
