//! Outcomes of failed binds. A case is one process and one address. The events about it wait
//! for its outcome, which is known when the address is bound, when the process exits, or at the
//! end of the window.
//!
//! Pure: records and events go in, outcomes come out. Times are nanoseconds of
//! `CLOCK_BOOTTIME`.

use std::{collections::HashMap, time::Duration};

use portwatch_common::{Source, Tenant};

use super::room::make_room;
use crate::{
    decode::{Did, RawFailure, RawFollowed, Watch},
    event::{Event, Outcome, outcome::UnitKind},
    evidence::Process,
    kernel::sets::{EXITED, FORKED, Probe},
};

mod case;
mod place;
mod target;
mod waiting;

use case::Case;
pub use place::{Place, Service};
use target::Target;

/// The most cases at a time. To make space for another one, the tenant with the most cases
/// loses one.
const MOST_CASES: usize = 2048;
/// The most events that wait for the outcome of one case.
const MOST_WAITING: usize = 16;
/// After this time all records from before the end of the window have come through the ring.
const GRACE_NS: u64 = 250_000_000;

/// An outcome, and the service to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The outcome, as far as the hooks know.
    pub outcome: Outcome,
    /// The service whose process exited.
    pub ask: Option<Service>,
}

/// Whether a process is running at the end of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alive {
    /// It is running.
    Yes,
    /// It has exited.
    No,
    /// It could not be checked.
    Unknown,
}

/// What the attached hooks cannot see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blind {
    /// Exits of processes.
    pub exits: bool,
    /// Processes that they start.
    pub forks: bool,
}

impl Blind {
    /// Derives it from the attached programs.
    pub fn of(attached: &[Probe]) -> Self {
        let lacks = |name| !attached.iter().any(|probe| probe.program == name);
        Self { exits: lacks(EXITED), forks: lacks(FORKED) }
    }
}

/// All cases.
pub struct Outcomes {
    window_ns: u64,
    /// How long after its last failure another event about a case may arrive.
    keep_ns: u64,
    blind: Blind,
    cases: HashMap<Key, Case>,
    /// When the next window ends.
    next_ns: Option<u64>,
    /// Events that get no outcome.
    untracked: u64,
}

/// What identifies a case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    watch: Watch,
    target: Target,
}

impl Outcomes {
    /// Creates it without cases. A `window` of zero turns outcomes off. Summaries of failures
    /// may arrive up to `storm_window` later.
    pub fn new(window: Duration, storm_window: Duration, blind: Blind) -> Self {
        let mut outcomes = Self {
            window_ns: 0,
            keep_ns: 0,
            blind,
            cases: HashMap::new(),
            next_ns: None,
            untracked: 0,
        };
        outcomes.set_windows(window, storm_window);
        outcomes
    }

    /// Sets the length of windows from now on.
    pub fn set_windows(&mut self, window: Duration, storm_window: Duration) {
        self.window_ns = nanoseconds(window);
        self.keep_ns = self.window_ns.saturating_add(nanoseconds(storm_window)) + 2 * GRACE_NS;
    }

    /// Returns the number of events without an outcome since the last call.
    pub fn take_untracked(&mut self) -> u64 {
        std::mem::take(&mut self.untracked)
    }

    /// Counts a failed bind that is not enriched as one more attempt of its case.
    pub fn failed(&mut self, raw: &RawFailure) {
        let target = Target::of(&raw.bind);
        self.count(raw.task.pid, &target, 1, raw.bind.at_ns);
    }

    /// Counts failed binds that the kernel side has only counted.
    pub fn counted(&mut self, source: &Source, count: u64, last_ns: u64) {
        if self.cases.is_empty() {
            return;
        }
        if let Some(target) = Target::of_source(source) {
            self.count(source.pid, &target, count, last_ns);
        }
    }

    fn count(&mut self, pid: u32, target: &Target, count: u64, last_ns: u64) {
        let cases = self.cases.iter_mut();
        for (key, case) in cases.filter(|(key, _)| key.target == *target) {
            if case.is_by(pid, key.watch.pid) {
                case.failed_again(count, last_ns);
            }
        }
    }

    /// Opens a case for an enriched failed bind. `group` is the process's control group, if its
    /// id and path are known. `unseen` is the number of records of its user that were lost so
    /// far.
    pub fn open(&mut self, raw: &RawFailure, event: &Event, group: Option<u64>, unseen: u64) {
        if self.window_ns == 0 || raw.task.kernel_thread {
            return;
        }
        let target = Target::of(&raw.bind);
        let at_ns = raw.bind.at_ns;
        let new = Case::new(raw, event, group, unseen);
        let (pid, comm, place) = (raw.task.pid, &raw.task.comm, new.successors.place.as_ref());
        for (key, case) in self.cases.iter_mut().filter(|(key, _)| key.target == target) {
            if case.children.contains(&pid) {
                case.failed_again(1, at_ns);
            } else if key.watch.pid != pid && case.successors.are_in(group, place, comm) {
                case.restarted_and_failed(at_ns);
            }
        }
        let Some(watch) = raw.watch else { return };
        let key = Key { watch, target };
        if let Some(case) = self.cases.get_mut(&key) {
            case.failed_again(1, at_ns);
            return;
        }
        if let Some(gone) = make_room(&mut self.cases, MOST_CASES, |it| (it.tenant, it.last_ns)) {
            self.untracked += gone.waiting.len() as u64;
        }
        self.cases.insert(key, new);
    }

    /// Makes a reported event wait for its outcome. Returns the outcome if it is known already.
    pub fn told(&mut self, event: &Event) -> Option<Told> {
        if self.window_ns == 0 {
            return None;
        }
        let target = Target::of_event(event);
        let pid = event.process.pid;
        let cases = self.cases.iter_mut();
        let own = cases.filter(|(key, _)| key.watch.pid == pid && key.target == target);
        let latest = own.max_by_key(|(key, _)| key.watch.since_ns);
        let Some((_, case)) = latest.filter(|(_, case)| case.waiting.len() < MOST_WAITING) else {
            self.untracked += 1;
            return None;
        };
        let waiting = case.wait(event);
        let outcome = case.answer_known(&waiting);
        if outcome.is_none() {
            let due = waiting.due_ns(self.window_ns) + GRACE_NS;
            self.next_ns = Some(self.next_ns.map_or(due, |next| next.min(due)));
            case.waiting.push(waiting);
        }
        outcome
    }

    /// Processes an action of a followed process. `place` returns where the process belongs.
    /// The outcomes that are known now are passed to `tell`.
    pub fn followed(
        &mut self,
        raw: &RawFollowed,
        mut place: impl FnMut(&RawFollowed) -> Option<Place>,
        mut tell: impl FnMut(Told),
    ) {
        // The place of the process, looked up once and only if it matters.
        let mut belongs: Option<Option<Place>> = None;
        for (key, case) in &mut self.cases {
            let is_own = raw.own == Some(key.watch);
            let is_child = raw.root == Some(key.watch);
            // A child that was started before the failure.
            let is_older =
                || raw.parent == Some(key.watch.pid) && case.ended.is_none() && raw.own.is_none();
            match &raw.did {
                Did::Bind(bound) if key.target.is_beside(bound) => {
                    let mut is_successor = || {
                        let successors = &case.successors;
                        successors.have_parent_of(raw)
                            || successors.are_in(Some(raw.cgroup_id), None, &raw.comm)
                            || successors.place.is_some() && {
                                let place = belongs.get_or_insert_with(|| place(raw));
                                successors.are_in(None, place.as_ref(), &raw.comm)
                            }
                    };
                    let is_its = is_own || is_child || is_older();
                    if key.target.is_met_by(bound) && (is_its || is_successor()) {
                        case.has_recovered(raw, bound);
                    } else if is_its && key.target.is_other(bound) {
                        case.has_another(raw, bound);
                    }
                }
                Did::Fork { child, followed } if is_own || is_child => {
                    case.has_child(Some(*child).filter(|_| *followed));
                }
                Did::Exit { code, more } if is_own || is_child => {
                    case.has_ended(raw, is_own, *code, *more);
                }
                _ => {}
            }
            case.tell_known(&mut tell);
        }
    }

    /// Passes the outcomes that are due to `tell`. `waits` says whether records of a tenant
    /// from before that time are still in the queue. `look` says whether the process that
    /// started and failed at these times is running. `unseen` returns how many records of a
    /// tenant were lost.
    pub fn settle(
        &mut self,
        now_ns: u64,
        waits: impl Fn(Tenant, u64) -> bool,
        look: impl Fn(u32, Option<u64>, u64) -> Alive,
        unseen: impl Fn(Tenant) -> u64,
        mut tell: impl FnMut(Told),
    ) {
        if self.next_ns.is_none_or(|next| next > now_ns) {
            return;
        }
        let (window_ns, blind) = (self.window_ns, self.blind);
        let keep_ns = self.keep_ns;
        self.cases.retain(|key, case| {
            let pid = key.watch.pid;
            let tenant = case.tenant;
            let is_due = |due_ns| due_ns + GRACE_NS <= now_ns && !waits(tenant, due_ns);
            let due = case.take_due(window_ns, is_due);
            if !due.is_empty() {
                let alive = match case.needs_a_look() {
                    true => look(pid, case.started_ns, case.opened_ns),
                    false => Alive::Unknown,
                };
                case.look_at_children(|child, at_ns| look(child, None, at_ns) == Alive::No);
                let unseen = unseen(tenant);
                for one in &due {
                    tell(case.in_the_end(one, window_ns, alive, blind, unseen));
                }
            }
            !case.waiting.is_empty() || case.last_ns.saturating_add(keep_ns) > now_ns
        });
        self.next_ns = self.cases.values().map(|case| case.next_ns(window_ns, keep_ns)).min();
        self.next_ns = self.next_ns.map(|next| next + GRACE_NS);
    }

    /// Returns how soon something is due.
    pub fn next(&self, now_ns: u64) -> Option<Duration> {
        self.next_ns.map(|next| Duration::from_nanos(next.saturating_sub(now_ns)))
    }

    /// Returns the outcomes of processes that have exited. It is called when the agent ends.
    pub fn all(self) -> impl Iterator<Item = Told> {
        let blind = self.blind;
        let ended = self.cases.into_values().filter(|case| case.ended.is_some());
        ended.flat_map(move |mut case| {
            let waiting = std::mem::take(&mut case.waiting);
            let told = waiting
                .iter()
                .map(|one| case.in_the_end(one, 0, Alive::Unknown, blind, case.unseen));
            told.collect::<Vec<_>>()
        })
    }
}

/// Returns the container or unit of a process, if it has one.
fn unit_of(process: &Process) -> Option<(UnitKind, String)> {
    let workload = process.workload.as_ref().and_then(|workload| workload.name.clone());
    let container = process.container.clone().map(|id| workload.unwrap_or(id));
    let unit = process.unit.clone().filter(|_| process.session.is_none());
    let container = container.map(|name| (UnitKind::Container, name));
    container.or(unit.map(|name| (UnitKind::Unit, name)))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
