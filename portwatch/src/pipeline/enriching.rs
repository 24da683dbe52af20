//! The thread between the ring and the sinks: looks into refusals, diagnoses them, and
//! counts those that are equal or not wanted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use portwatch_common::Source;

use super::{outlet::Outlets, storms::Storms};
use crate::{
    config::filter::{Filter, Ignored},
    decode::RawFailure,
    diagnose::diagnose,
    enrich::Enricher,
    event::{Event, Host, Record},
    kernel::limits::Counted,
    memory,
    metrics::{Metrics, stage::Stage},
    redact::Redaction,
};

/// Sources that are kept in mind as not wanted; more are looked into each time.
const MOST_IGNORED: usize = 4096;

/// How long they are believed. A number comes round again sooner or later, and a source
/// whose process's start is not known cannot be told from the next of its number.
const IGNORED_FOR: Duration = Duration::from_secs(10);

/// How soon after the last time what a burst took is given back: a millisecond's work.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// What may change while the agent runs.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// What is told.
    pub filter: Filter,
    /// Equal failures within this time are told together; zero tells each.
    pub storm_window: Duration,
    /// How long one refusal may be looked into.
    pub deadline: Duration,
    /// What is taken out of command lines.
    pub redaction: Redaction,
}

/// What the thread is given.
pub enum Work {
    /// A refusal.
    Failure(Box<RawFailure>),
    /// Refusals that the kernel side has only counted.
    Counted(Counted),
    /// There is another tuning, in the [`Slot`].
    Tuned,
}

/// The newest tuning that was not taken over yet. It stands beside the queue, which
/// may be full.
pub type Slot = Arc<Mutex<Option<Tuning>>>;

/// Sources that are not wanted, for a while.
#[derive(Default)]
struct Unwanted(HashMap<Source, (Option<u64>, Instant)>);

impl Unwanted {
    /// Whether the process of a refusal is one of them. Another of its number, and one of
    /// long ago, is forgotten.
    fn has(&mut self, raw: &RawFailure, now: Instant) -> bool {
        let Some(&(started_ns, at)) = self.0.get(&raw.source) else { return false };
        let is_it = started_ns == raw.task.started_ns && now.duration_since(at) < IGNORED_FOR;
        if !is_it {
            self.0.remove(&raw.source);
        }
        is_it
    }

    /// Whether a source that was only counted is one of them. It has sent before it was,
    /// so it is of the process that was seen last.
    fn has_source(&self, source: &Source) -> bool {
        self.0.contains_key(source)
    }

    fn add(&mut self, raw: &RawFailure, now: Instant) {
        if self.0.len() >= MOST_IGNORED {
            self.0.clear();
        }
        self.0.insert(raw.source, (raw.task.started_ns, now));
    }
}

/// The thread's state.
pub struct Enriching {
    /// Fills evidence in.
    pub enricher: Enricher,
    /// What is counted.
    pub storms: Storms,
    /// What is told.
    pub filter: Filter,
    /// Where it is looked for when something has come.
    pub slot: Slot,
    /// The host, as events carry it.
    pub host: Host,
    /// Where events go.
    pub outlets: Arc<Outlets>,
    /// What is counted of it.
    pub metrics: Arc<Metrics>,
    /// The queue, watched.
    pub stage: Arc<Stage>,
}

impl Enriching {
    /// Works until the queue is closed and empty.
    pub fn run(mut self, queue: &Receiver<Work>) {
        let mut ignored = Unwanted::default();
        let mut given_back = Instant::now();
        loop {
            let ends = self.storms.next_end(Instant::now());
            let work = match self.enricher.next_rest().into_iter().chain(ends).min() {
                Some(wait) => queue.recv_timeout(wait),
                None => queue.recv().map_err(RecvTimeoutError::from),
            };
            self.retune(&mut ignored);
            let now = Instant::now();
            match work {
                Ok(work) => {
                    self.work(work, &mut ignored, now);
                    self.stage.done();
                }
                Err(RecvTimeoutError::Timeout) => self.enricher.rest(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for event in self.storms.ended(now) {
                self.tell(event);
            }
            // Looked at only when there was something to do.
            if given_back.elapsed() > GIVE_BACK {
                memory::give_back();
                given_back = Instant::now();
            }
        }
        for event in self.storms.all() {
            tell(&self.metrics, &self.outlets, event);
        }
        self.stage.end();
    }

    fn work(&mut self, work: Work, ignored: &mut Unwanted, now: Instant) {
        match work {
            Work::Failure(raw) => {
                if ignored.has(&raw, now) {
                    self.metrics.ignored(Ignored::Unit, 1);
                } else if !self.storms.absorb(&raw, now) && !self.look_into(&raw, now) {
                    ignored.add(&raw, now);
                    self.metrics.ignored(Ignored::Unit, 1);
                }
            }
            Work::Counted(Counted { source, count, last_ns }) => {
                self.metrics.ratelimited(count);
                if ignored.has_source(&source) {
                    self.metrics.ignored(Ignored::Unit, count);
                } else if !self.storms.count(&source, count, last_ns) {
                    self.outlets.lost("source", count);
                }
            }
            Work::Tuned => {}
        }
    }

    /// Gives whether the failure is wanted.
    fn look_into(&mut self, raw: &RawFailure, now: Instant) -> bool {
        let begun = Instant::now();
        let evidence = self.enricher.enrich(raw);
        self.metrics.enriched(begun.elapsed());
        if !self.filter.wants_process(&evidence.process) {
            return false;
        }
        let diagnosis = diagnose(&evidence);
        let event = Event::new(&self.host, raw, evidence, diagnosis);
        if let Some(event) = self.storms.admit(raw, event, now) {
            self.tell(event);
        }
        true
    }

    fn tell(&self, event: Event) {
        tell(&self.metrics, &self.outlets, event);
    }

    fn retune(&mut self, ignored: &mut Unwanted) {
        let next = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Tuning { filter, storm_window, deadline, redaction }) = next else { return };
        self.filter = filter;
        self.storms.set_window(storm_window);
        self.enricher.tune(deadline, redaction);
        ignored.0.clear();
    }
}

fn tell(metrics: &Metrics, outlets: &Outlets, event: Event) {
    metrics.told(&event);
    outlets.offer(Record::BindFailure(Box::new(event)));
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;
    use crate::{
        decode::RawTask,
        evidence::{Family, Protocol, Stage},
    };

    fn refused(started_ns: Option<u64>) -> RawFailure {
        RawFailure {
            at_ns: 1,
            stage: Stage::Bind,
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            address_seen: true,
            port: 80,
            device: None,
            reuseaddr: None,
            reuseport: None,
            v6only: None,
            socket_uid: None,
            socket_cookie: None,
            netns_inode: None,
            netns_cookie: None,
            culprit: None,
            task: RawTask { started_ns, ..RawTask::default() },
            source: Source::zeroed(),
        }
    }

    #[test]
    fn another_process_of_an_ignored_number_is_looked_into() {
        let (mut unwanted, now) = (Unwanted::default(), Instant::now());
        unwanted.add(&refused(Some(1)), now);
        assert!(unwanted.has(&refused(Some(1)), now));
        assert!(!unwanted.has(&refused(Some(2)), now));
        assert!(!unwanted.has_source(&Source::zeroed()), "what it is counted for is its own");
    }

    #[test]
    fn whose_start_is_not_known_is_ignored_for_a_while_only() {
        let (mut unwanted, now) = (Unwanted::default(), Instant::now());
        unwanted.add(&refused(None), now);
        assert!(unwanted.has(&refused(None), now + IGNORED_FOR / 2));
        assert!(!unwanted.has(&refused(None), now + IGNORED_FOR));
        assert!(!unwanted.has_source(&Source::zeroed()));
    }
}
