//! The thread between the ring and the sinks. It enriches failed binds, diagnoses them, and
//! counts those that are identical or ignored.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use portwatch_common::Tenant;

use super::{
    asking::Asking,
    budget::Budget,
    outcomes::{Alive, Outcomes, Place, Told},
    outlet::Outlets,
    storms::Storms,
};
use crate::{
    config::filter::{Filter, Ignored},
    decode::{RawFailure, RawFollowed},
    diagnose::diagnose,
    enrich::{Enricher, host::boottime_ns},
    event::{Event, Host, Record},
    evidence::Cgroup,
    kernel::limits::{Counted, CountedBy},
    memory,
    metrics::{Metrics, stage::Stage},
    redact::Redaction,
    shared::{
        Shared,
        fair_queue::{FairQueue, Next},
    },
};

/// The most control groups that are remembered as ignored. Failed binds of others are enriched
/// each time.
const MOST_IGNORED: usize = 4096;

/// How long they are remembered.
const IGNORED_FOR: Duration = Duration::from_secs(10);

/// The most tenants whose progress is known.
const MOST_PROGRESS: usize = 4096;

/// Pause between releases of the memory that a burst needed. Each release takes a millisecond.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// Settings that can change while the agent runs.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// What is reported.
    pub filter: Filter,
    /// Identical failures within this time are reported together; zero reports each.
    pub storm_window: Duration,
    /// How long a failed bind waits for its outcome; zero turns outcomes off.
    pub outcome_window: Duration,
    /// Time limit for one failed bind.
    pub deadline: Duration,
    /// What is redacted in command lines.
    pub redaction: Redaction,
}

/// The thread's input.
pub enum Work {
    /// A failed bind.
    Failure(Box<RawFailure>),
    /// Failed binds that the kernel side has only counted.
    Counted(Counted),
    /// An action of a followed process.
    Followed(Box<RawFollowed>),
}

impl Work {
    /// Returns how many failed binds this counts for.
    pub fn count(&self) -> u64 {
        match self {
            Self::Failure(_) => 1,
            Self::Counted(counted) => counted.count,
            Self::Followed(_) => 0,
        }
    }

    /// Returns when it happened, in nanoseconds of `CLOCK_BOOTTIME`.
    fn at_ns(&self) -> u64 {
        match self {
            Self::Failure(raw) => raw.bind.at_ns,
            Self::Counted(counted) => counted.last_ns,
            Self::Followed(raw) => raw.at_ns,
        }
    }
}

/// The newest tuning that has not taken effect yet. It is not in the queue, which may be full.
pub type Slot = Arc<Shared<Option<Tuning>>>;

/// Control groups whose failed binds are ignored, for a while. A group's id is never reused,
/// unlike a pid.
#[derive(Default)]
struct Unwanted(HashMap<u64, Instant>);

impl Unwanted {
    /// Returns whether a tenant's group is one of them.
    fn has(&mut self, tenant: Tenant, now: Instant) -> bool {
        let at = self.0.get(&tenant.cgroup_id);
        at.is_some_and(|&at| now.duration_since(at) < IGNORED_FOR)
    }

    fn add(&mut self, raw: &RawFailure, now: Instant) {
        /// systemd fails on behalf of many units: those whose sockets it opens.
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
    /// The enricher.
    pub enricher: Enricher,
    /// Identical failures that are counted.
    pub storms: Storms,
    /// The outcomes of failed binds.
    pub outcomes: Outcomes,
    /// The time of this thread that each tenant has used.
    pub budget: Budget,
    /// Time limit for one failed bind.
    pub deadline: Duration,
    /// What is reported.
    pub filter: Filter,
    /// Checked for a new tuning after each input.
    pub slot: Slot,
    /// The host, as it is written in events.
    pub host: Host,
    /// The outputs.
    pub outlets: Arc<Outlets>,
    /// Passes outcomes on.
    pub asking: Asking,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The queue's stage.
    pub stage: Arc<Stage>,
}

impl Enriching {
    /// Works until the queue is closed and empty.
    pub fn run(mut self, queue: &FairQueue<Work>) {
        let mut ignored = Unwanted::default();
        let mut given_back = Instant::now();
        // The time up to which the work of each tenant is done. A tenant's work comes in order.
        let mut done = HashMap::new();
        loop {
            let ends = [
                self.storms.next_end(Instant::now()),
                self.outcomes.next(boottime_ns()),
                self.enricher.next_rest(),
            ];
            let next = queue.pop(ends.into_iter().flatten().min());
            self.retune(&mut ignored);
            let now = Instant::now();
            match next {
                Next::Item(tenant, work) => {
                    if done.len() >= MOST_PROGRESS {
                        done.clear();
                    }
                    done.insert(tenant, work.at_ns());
                    self.work(work, &mut ignored, now);
                    let end = Instant::now();
                    queue.charge(tenant, end.duration_since(now));
                    self.budget.charge(tenant, end.duration_since(now), end);
                    self.stage.done();
                }
                Next::Nothing => self.enricher.rest(),
                Next::Closed => break,
            }
            self.tell_ended(now);
            self.settle(queue, &done);
            // Checked only after there was work.
            if given_back.elapsed() > GIVE_BACK {
                memory::give_back();
                given_back = Instant::now();
            }
        }
        let Self { storms, mut outcomes, metrics, outlets, asking, stage, .. } = self;
        for event in storms.all() {
            tell(&metrics, &outlets, &asking, &mut outcomes, event);
        }
        outcomes.all().for_each(|told| tell_outcome(&metrics, &asking, told));
        stage.end();
    }

    /// Reports summaries of windows that have ended.
    fn tell_ended(&mut self, now: Instant) {
        let Self { storms, outcomes, metrics, outlets, asking, .. } = self;
        storms.ended(now, |event| tell(metrics, outlets, asking, outcomes, event));
    }

    /// Reports outcomes that are due.
    fn settle(&mut self, queue: &FairQueue<Work>, done: &HashMap<Tenant, u64>) {
        let Self { outcomes, enricher, metrics, asking, .. } = self;
        let look = |pid, started_ns, at_ns| match enricher.is_running(pid, started_ns, at_ns) {
            Some(true) => Alive::Yes,
            Some(false) => Alive::No,
            None => Alive::Unknown,
        };
        let waits = |tenant, due_ns| {
            done.get(&tenant).is_none_or(|&done| done <= due_ns) && queue.has(tenant)
        };
        let unseen = |tenant| metrics.followed_lost.by(tenant);
        let tell = |told| tell_outcome(metrics, asking, told);
        outcomes.settle(boottime_ns(), waits, look, unseen, tell);
        metrics.untracked(outcomes.take_untracked());
    }

    fn work(&mut self, work: Work, ignored: &mut Unwanted, now: Instant) {
        match work {
            Work::Failure(raw) => {
                if ignored.has(raw.tenant(), now) {
                    self.metrics.ignored(Ignored::Unit, 1);
                } else if self.storms.absorb(&raw, now) {
                    self.outcomes.failed(&raw);
                } else if let Err(unwanted) = self.look_into(&raw, now) {
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
                } else if let CountedBy::Source(source) = &by {
                    self.outcomes.counted(source, count, last_ns);
                }
            }
            Work::Followed(raw) => {
                let Self { outcomes, enricher, metrics, asking, .. } = self;
                let place = |raw: &RawFollowed| {
                    let mut process = enricher.process_in(raw.cgroup_id);
                    (process.pid, process.comm) = (raw.pid, Some(raw.comm.clone()));
                    Place::of(&process)
                };
                outcomes.followed(&raw, place, |told| tell_outcome(metrics, asking, told));
            }
        }
    }

    /// Enriches, diagnoses and passes on a failed bind.
    ///
    /// # Errors
    /// It is ignored because of the unit of this control group.
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
        let group = event.process.cgroup.as_ref().filter(|it| self.enricher.is_one_group(it));
        let unseen = self.metrics.followed_lost.by(raw.tenant());
        self.outcomes.open(raw, &event, group.and_then(|group| group.id), unseen);
        if let Some(event) = self.storms.admit(raw, event, now) {
            self.tell(event);
        }
        Ok(())
    }

    fn tell(&mut self, event: Event) {
        tell(&self.metrics, &self.outlets, &self.asking, &mut self.outcomes, event);
    }

    fn retune(&mut self, ignored: &mut Unwanted) {
        let next = self.slot.replace(None);
        let Some(Tuning { filter, storm_window, outcome_window, deadline, redaction }) = next
        else {
            return;
        };
        self.filter = filter;
        self.storms.set_window(storm_window);
        self.outcomes.set_windows(outcome_window, storm_window);
        self.deadline = deadline;
        self.enricher.redact_by(redaction);
        ignored.0.clear();
    }
}

fn tell(
    metrics: &Metrics,
    outlets: &Outlets,
    asking: &Asking,
    outcomes: &mut Outcomes,
    event: Event,
) {
    metrics.told(&event);
    let known = outcomes.told(&event);
    outlets.offer(Record::BindFailure(Box::new(event)));
    known.into_iter().for_each(|told| tell_outcome(metrics, asking, told));
}

fn tell_outcome(metrics: &Metrics, asking: &Asking, told: Told) {
    metrics.became(&told.outcome);
    asking.pass(told);
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
