//! The thread between the ring and the sinks: looks into refusals, diagnoses them, and
//! counts those that are equal or not wanted.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use portwatch_common::Tenant;

use super::{budget::Budget, outlet::Outlets, storms::Storms};
use crate::{
    config::filter::{Filter, Ignored},
    decode::RawFailure,
    diagnose::diagnose,
    enrich::Enricher,
    event::{Event, Host, Record},
    evidence::Cgroup,
    kernel::limits::Counted,
    memory,
    metrics::{Metrics, stage::Stage},
    redact::Redaction,
    shared::{
        Shared,
        fair_queue::{FairQueue, Next},
    },
};

/// Control groups that are kept in mind as not wanted; more are looked into each time.
const MOST_IGNORED: usize = 4096;

/// How long they are believed.
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
}

impl Work {
    /// Failed binds that this stands for.
    pub fn count(&self) -> u64 {
        match self {
            Self::Failure(_) => 1,
            Self::Counted(counted) => counted.count,
        }
    }
}

/// The newest tuning that was not taken over yet. It stands beside the queue, which
/// may be full.
pub type Slot = Arc<Shared<Option<Tuning>>>;

/// Control groups whose failed binds are not wanted, for a while. A unit is known by its
/// group, whose number no other group ever has; a process's number would be another's soon.
#[derive(Default)]
struct Unwanted(HashMap<u64, Instant>);

impl Unwanted {
    /// Whether a tenant's group is one of them.
    fn has(&mut self, tenant: Tenant, now: Instant) -> bool {
        let at = self.0.get(&tenant.cgroup_id);
        at.is_some_and(|&at| now.duration_since(at) < IGNORED_FOR)
    }

    fn add(&mut self, raw: &RawFailure, now: Instant) {
        /// It fails for many units, those that it listens for.
        const INIT: u32 = 1;
        let cgroup_id = raw.task.cgroup_id;
        if raw.task.pid == INIT || cgroup_id == 0 {
            return;
        }
        if self.0.len() >= MOST_IGNORED {
            self.0.clear();
        }
        self.0.insert(cgroup_id, now);
    }
}

/// The thread's state.
pub struct Enriching {
    /// Fills evidence in.
    pub enricher: Enricher,
    /// What is counted.
    pub storms: Storms,
    /// Who has used how much of this thread's time.
    pub budget: Budget,
    /// How long one failed bind may be looked into.
    pub deadline: Duration,
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
    pub fn run(mut self, queue: &FairQueue<Work>) {
        let mut ignored = Unwanted::default();
        let mut given_back = Instant::now();
        loop {
            let ends = self.storms.next_end(Instant::now());
            let next = queue.pop(self.enricher.next_rest().into_iter().chain(ends).min());
            self.retune(&mut ignored);
            let now = Instant::now();
            match next {
                Next::Item(tenant, work) => {
                    self.work(work, &mut ignored, now);
                    let done = Instant::now();
                    queue.charge(tenant, done.duration_since(now));
                    self.budget.charge(tenant, done.duration_since(now), done);
                    self.stage.done();
                }
                Next::Nothing => self.enricher.rest(),
                Next::Closed => break,
            }
            self.storms.ended(now, |event| tell(&self.metrics, &self.outlets, event));
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
                if ignored.has(raw.tenant(), now) {
                    self.metrics.ignored(Ignored::Unit, 1);
                } else if !self.storms.absorb(&raw, now)
                    && let Err(unwanted) = self.look_into(&raw, now)
                {
                    if self.enricher.is_one_group(&unwanted) {
                        ignored.add(&raw, now);
                    }
                    self.metrics.ignored(Ignored::Unit, 1);
                }
            }
            Work::Counted(Counted { by, tenant, count, last_ns }) => {
                self.metrics.ratelimited(count);
                if ignored.has(tenant, now) {
                    self.metrics.ignored(Ignored::Unit, count);
                } else if !self.storms.count(&by, tenant, count, last_ns) {
                    self.outlets.lost("source", count);
                }
            }
        }
    }

    /// Enriches, diagnoses and passes on a failed bind.
    ///
    /// # Errors
    /// It is not wanted, because of the unit of this group.
    fn look_into(&mut self, raw: &RawFailure, now: Instant) -> Result<(), Cgroup> {
        let begun = Instant::now();
        let patience = self.budget.patience(raw.tenant(), self.deadline, begun);
        let evidence = self.enricher.enrich(raw, patience);
        self.metrics.enriched(begun.elapsed());
        if !self.filter.wants_process(&evidence.process) {
            return Err(evidence.process.cgroup.unwrap_or(Cgroup { id: None, path: None }));
        }
        let diagnosis = diagnose(&evidence);
        let event = Event::new(&self.host, raw, evidence, diagnosis);
        if let Some(event) = self.storms.admit(raw, event, now) {
            self.tell(event);
        }
        Ok(())
    }

    fn tell(&self, event: Event) {
        tell(&self.metrics, &self.outlets, event);
    }

    fn retune(&mut self, ignored: &mut Unwanted) {
        let next = self.slot.replace(None);
        let Some(Tuning { filter, storm_window, deadline, redaction }) = next else { return };
        self.filter = filter;
        self.storms.set_window(storm_window);
        self.deadline = deadline;
        self.enricher.redact_by(redaction);
        ignored.0.clear();
    }
}

fn tell(metrics: &Metrics, outlets: &Outlets, event: Event) {
    metrics.told(&event);
    outlets.offer(Record::BindFailure(Box::new(event)));
}

#[cfg(test)]
mod tests {
    use portwatch_common::BindFailure;

    use super::*;
    use crate::decode::decode;

    fn failed(pid: u32, cgroup_id: u64) -> RawFailure {
        let mut record: BindFailure = bytemuck::Zeroable::zeroed();
        (record.attempt.stage, record.attempt.family) = (1, 2);
        (record.task.pid, record.task.cgroup_id) = (pid, cgroup_id);
        decode(bytemuck::bytes_of(&record)).unwrap()
    }

    #[test]
    fn a_group_is_ignored_for_a_while_whatever_its_processes_are() {
        let (mut unwanted, now) = (Unwanted::default(), Instant::now());
        unwanted.add(&failed(7, 70), now);
        assert!(unwanted.has(failed(8, 70).tenant(), now + IGNORED_FOR / 2));
        assert!(!unwanted.has(failed(7, 71).tenant(), now), "a process of that number elsewhere");
        assert!(!unwanted.has(failed(7, 70).tenant(), now + IGNORED_FOR));
    }

    #[test]
    fn what_pid_1_fails_at_says_nothing_of_its_group() {
        let (mut unwanted, now) = (Unwanted::default(), Instant::now());
        for failed in [failed(1, 70), failed(7, 0)] {
            unwanted.add(&failed, now);
            assert!(!unwanted.has(failed.tenant(), now));
        }
    }
}
