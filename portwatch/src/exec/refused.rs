//! Collects the ports that the command could not bind, as an additional sink.

use std::{io, sync::Arc};

use crate::{
    enrich::netns::again::Known,
    event::{Event, Record},
    evidence::{Failure, State},
    shared::Shared,
    sinks::Sink,
    wait::look::{Asked, FailedBind},
};

/// The most binds that are collected. If more fail, the command is started again when these are
/// free.
const MOST: usize = 64;

/// The failed binds so far, each only once, as conditions to wait for.
#[derive(Clone, Default)]
pub struct Refused(Arc<Shared<Vec<Asked>>>);

impl Refused {
    /// Returns the conditions so far.
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

/// Returns the condition that the failed bind would succeed now.
fn again(event: &Event) -> Asked {
    let listener = event.sockets.iter().find(|socket| socket.state == State::Listen);
    Asked::FreeAgain(Box::new(FailedBind {
        // The cookie is left out, because each socket has its own.
        failure: Failure { cookie: None, ..event.failure.clone() },
        reuseaddr: listener.and_then(|listener| listener.reuseaddr),
        netns: Known { inode: event.netns.inode, cookie: event.netns.cookie },
    }))
}
