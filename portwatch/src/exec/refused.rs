//! The ports that the command could not bind: an additional sink that collects them.

use std::{io, sync::Arc};

use crate::{
    enrich::netns::again::Known,
    event::{Event, Record},
    evidence::{Failure, State},
    shared::Shared,
    sinks::Sink,
    wait::look::{Asked, FailedBind},
};

/// Binds that are collected; if more fail, the command is started again when these are free.
const MOST: usize = 64;

/// The failed binds so far, each once, as conditions to wait for.
#[derive(Clone, Default)]
pub struct Refused(Arc<Shared<Vec<Asked>>>);

impl Refused {
    /// Returns those so far.
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

/// Returns the condition that the bind that failed would succeed now.
fn again(event: &Event) -> Asked {
    let listener = event.sockets.iter().find(|socket| socket.state == State::Listen);
    Asked::FreeAgain(Box::new(FailedBind {
        // Each socket has a cookie of its own.
        failure: Failure { cookie: None, ..event.failure.clone() },
        reuseaddr: listener.and_then(|listener| listener.reuseaddr),
        netns: Known { inode: event.netns.inode, cookie: event.netns.cookie },
    }))
}
