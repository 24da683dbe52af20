//! One process that could not bind one address.

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use portwatch_common::Tenant;

use super::{
    Alive, Blind, Told,
    place::{Service, Successors},
    target::Target,
    unit_of,
    waiting::Waiting,
};
use crate::{
    decode::{Bound, RawFailure, RawFollowed},
    event::{
        Event, OUTCOME, Outcome,
        outcome::{Actor, Became, Exit, OfUnit, UnitKind},
    },
    evidence::{Fact, Gap, Netns},
    redact::Redaction,
};

/// The most children of a case at a time.
const MOST_CHILDREN: usize = 64;

/// What is known about the case so far.
pub struct Case {
    /// The tenant to whose share it counts.
    pub tenant: Tenant,
    /// When it began, in nanoseconds of `CLOCK_BOOTTIME` and by the wall clock.
    pub opened_ns: u64,
    opened: Timestamp,
    /// Time of the last record about it.
    pub last_ns: u64,
    /// Time of the last failed bind.
    last_failed_ns: u64,
    /// Failed attempts.
    tries: u64,
    target: Target,
    netns: Netns,
    failing: Actor,
    /// The start of the process.
    pub started_ns: Option<u64>,
    /// The processes that may replace it.
    pub successors: Successors,
    unit: Option<(UnitKind, String)>,
    /// Its service, as the manager described it when the bind failed.
    service: Option<Service>,
    /// Whether another process of the unit has failed since then.
    restarted: bool,
    /// Another port that was bound, by which process and when.
    other: Option<(SocketAddr, Actor, u64)>,
    /// The processes that it has started and that have not exited.
    pub children: Vec<u32>,
    more_children: bool,
    /// Number of lost records of its user when it began.
    pub unseen: u64,
    /// How the process exited, and when.
    pub ended: Option<(Exit, u64)>,
    /// The same for the last child that exited.
    child_ended: Option<(Exit, u64)>,
    known: Option<Verdict>,
    /// The events that wait for the outcome.
    pub waiting: Vec<Waiting>,
}

/// An outcome that does not belong to an event yet.
#[derive(Clone)]
struct Verdict {
    became: Became,
    at_ns: u64,
    by: Actor,
    bound: Option<SocketAddr>,
    exit: Option<Exit>,
    gaps: Vec<Gap>,
}

impl Case {
    /// Creates a case from a failed bind and its event.
    pub fn new(raw: &RawFailure, event: &Event, group: Option<u64>, unseen: u64) -> Self {
        let successors = Successors::of(raw, event, group);
        let at_ns = raw.bind.at_ns;
        Self {
            tenant: raw.tenant(),
            opened_ns: at_ns,
            opened: event.time,
            last_ns: at_ns,
            last_failed_ns: at_ns,
            tries: 1,
            target: Target::of(&raw.bind),
            netns: event.netns.clone(),
            failing: Actor { pid: raw.task.pid, comm: event.process.comm.clone() },
            started_ns: raw.task.started_ns,
            service: successors.place.as_ref().and_then(|place| Service::of(place, event)),
            successors,
            unit: unit_of(&event.process),
            restarted: false,
            other: None,
            children: Vec::new(),
            more_children: false,
            unseen,
            ended: None,
            child_ended: None,
            known: None,
            waiting: Vec::new(),
        }
    }

    /// Returns whether this is the pid of the process, or of a process that it has started.
    pub fn is_by(&self, pid: u32, own: u32) -> bool {
        pid == own && self.ended.is_none() || self.children.contains(&pid)
    }

    /// Counts more failed binds of the process, the last of them at this time.
    pub fn failed_again(&mut self, count: u64, last_ns: u64) {
        self.tries = self.tries.saturating_add(count);
        self.last_failed_ns = self.last_failed_ns.max(last_ns);
        self.last_ns = self.last_ns.max(last_ns);
        // The process had bound the address, has closed it, and binds it again.
        if self.known.as_ref().is_some_and(|known| known.at_ns < last_ns) {
            self.known = None;
        }
    }

    /// Counts a failed bind of another process of the unit at the same address.
    pub fn restarted_and_failed(&mut self, at_ns: u64) {
        if at_ns > self.opened_ns && self.known.is_none() {
            self.restarted = true;
            self.tries = self.tries.saturating_add(1);
        }
    }

    /// Returns the entry for a reported event.
    pub fn wait(&mut self, event: &Event) -> Waiting {
        let ns = |at: Timestamp| {
            let since = at.duration_since(self.opened).as_nanos();
            let at_ns = i128::from(self.opened_ns).saturating_add(since);
            u64::try_from(at_ns).unwrap_or(self.opened_ns)
        };
        let first_ns = ns(event.first_seen.unwrap_or(event.time));
        let last_ns = ns(event.last_seen.unwrap_or(event.time));
        self.last_ns = self.last_ns.max(last_ns);
        Waiting { id: event.id.clone(), first_ns, last_ns, count: event.count, tries: self.tries }
    }

    /// Returns the outcome of an event, if it is known by now.
    pub fn answer_known(&self, waiting: &Waiting) -> Option<Told> {
        self.known.as_ref().map(|known| self.answer(waiting, known.clone()))
    }

    /// Passes on the outcomes of all events that wait, if the outcome is known by now.
    pub fn tell_known(&mut self, tell: &mut impl FnMut(Told)) {
        if self.known.is_none() {
            return;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            self.answer_known(&waiting).into_iter().for_each(&mut *tell);
        }
    }

    /// Records that the address was bound.
    pub fn has_recovered(&mut self, raw: &RawFollowed, bound: &Bound) {
        if raw.at_ns < self.last_failed_ns {
            return;
        }
        let by = actor(raw);
        self.know(Became::Recovered, raw.at_ns, by, Some(address_of(bound)), None);
    }

    /// Records that the process or a child has bound another port.
    pub fn has_another(&mut self, raw: &RawFollowed, bound: &Bound) {
        if self.other.is_none() && raw.at_ns >= self.opened_ns {
            self.other = Some((address_of(bound), actor(raw), raw.at_ns));
        }
    }

    /// Adds a process that it has started, or `None` if that process is not followed.
    pub fn has_child(&mut self, pid: Option<u32>) {
        match pid.filter(|_| self.children.len() < MOST_CHILDREN) {
            Some(pid) => self.children.push(pid),
            None => self.more_children = true,
        }
    }

    /// Records the exit of the process, or of a child.
    pub fn has_ended(&mut self, raw: &RawFollowed, is_own: bool, code: u32, more: bool) {
        let end = Some((Exit::of(code), raw.at_ns));
        self.more_children |= more;
        if is_own {
            self.ended = end;
        } else {
            self.children.retain(|&child| child != raw.pid);
            self.child_ended = end;
        }
        // A successor may still bind it, and so may a child.
        if let Some((exit, at_ns)) = self.over()
            && self.children.is_empty()
            && !self.more_children
            && !self.successors.may_come()
        {
            self.know_exit(exit, at_ns);
        }
    }

    /// Returns how and when it exited. If the program continues in a child, the process itself
    /// exits first, with status 0.
    fn over(&self) -> Option<(Exit, u64)> {
        let (exit, at_ns) = self.ended?;
        if !exit.is_success() {
            return Some((exit, at_ns));
        }
        match self.child_ended {
            _ if !self.children.is_empty() => None,
            Some((exit, child_ns)) if child_ns > at_ns => Some((exit, child_ns)),
            _ => Some((exit, at_ns)),
        }
    }

    /// Returns whether an exit was not due to the failed bind, if another port was bound: with
    /// status 0, or because somebody ended the program, which had found its port.
    fn went_on(&self, exit: Exit) -> bool {
        exit.is_success() || (exit.is_asked_for() && self.has_moved())
    }

    /// Returns whether the last that it did was to bind another port.
    fn has_moved(&self) -> bool {
        self.other.as_ref().is_some_and(|other| other.2 > self.last_failed_ns)
    }

    fn know_exit(&mut self, exit: Exit, at_ns: u64) {
        match self.other.clone().filter(|_| self.went_on(exit)) {
            Some((bound, by, at_ns)) => {
                self.know(Became::AnotherPort, at_ns, by, Some(bound), None)
            }
            None => {
                let failing = self.failing.clone();
                self.know(Became::Exited, at_ns, failing, None, Some(exit));
            }
        }
    }

    fn know(
        &mut self,
        became: Became,
        at_ns: u64,
        by: Actor,
        bound: Option<SocketAddr>,
        exit: Option<Exit>,
    ) {
        self.last_ns = self.last_ns.max(at_ns);
        self.known.get_or_insert(Verdict { became, at_ns, by, bound, exit, gaps: Vec::new() });
    }

    /// Removes and returns the events whose window has ended.
    pub fn take_due(&mut self, window_ns: u64, is_due: impl Fn(u64) -> bool) -> Vec<Waiting> {
        let waiting = std::mem::take(&mut self.waiting);
        let (due, rest) = waiting.into_iter().partition(|one| is_due(one.due_ns(window_ns)));
        self.waiting = rest;
        due
    }

    /// Returns whether the outcome depends on whether the process is running.
    pub fn needs_a_look(&self) -> bool {
        self.known.is_none() && self.ended.is_none()
    }

    /// Removes children that are not running. The exits of some may not have been seen.
    pub fn look_at_children(&mut self, is_gone: impl Fn(u32, u64) -> bool) {
        if let Some((_, at_ns)) = self.ended.filter(|_| self.known.is_none()) {
            self.children.retain(|&child| !is_gone(child, at_ns));
        }
    }

    /// Returns when the case is due next.
    pub fn next_ns(&self, window_ns: u64, keep_ns: u64) -> u64 {
        let due = self.waiting.iter().map(|waiting| waiting.due_ns(window_ns)).min();
        due.unwrap_or(self.last_ns.saturating_add(keep_ns))
    }

    /// Returns the outcome at the end of the window.
    pub fn in_the_end(
        &self,
        waiting: &Waiting,
        window_ns: u64,
        alive: Alive,
        blind: Blind,
        unseen: u64,
    ) -> Told {
        let mut verdict = match &self.known {
            Some(known) => known.clone(),
            None => self.judge(waiting, window_ns, alive),
        };
        let is_open = verdict.became != Became::Recovered;
        if is_open && !self.target.shows_success() {
            let why = "the hooks do not see successful binds of this protocol";
            verdict.gaps.push(Gap::new(Fact::Success, why));
        }
        if is_open && (self.more_children || blind.forks) {
            let why = match blind.forks {
                true => "the hooks do not see which processes are started",
                false => "it has started more processes than are followed",
            };
            verdict.gaps.push(Gap::new(Fact::Children, why));
        }
        if is_open && unseen != self.unseen {
            let why = "records of what processes did were lost";
            verdict.gaps.push(Gap::new(Fact::Success, why));
        }
        if blind.exits && alive == Alive::Unknown && verdict.exit.is_none() && is_open {
            let why = "the hooks do not see which processes end";
            verdict.gaps.push(Gap::new(Fact::Exit, why));
        }
        self.answer(waiting, verdict)
    }

    fn judge(&self, waiting: &Waiting, window_ns: u64, alive: Alive) -> Verdict {
        let due_ns = waiting.due_ns(window_ns);
        let of = |became, at_ns, exit| Verdict {
            became,
            at_ns,
            by: self.failing.clone(),
            bound: None,
            exit,
            gaps: Vec::new(),
        };
        let another = self.other.as_ref().map(|(bound, by, at_ns)| Verdict {
            by: by.clone(),
            bound: Some(*bound),
            ..of(Became::AnotherPort, *at_ns, None)
        });
        if let Some((exit, at_ns)) = self.over() {
            return match another.filter(|_| self.went_on(exit)) {
                Some(another) => another,
                None => of(Became::Exited, at_ns, Some(exit)),
            };
        }
        if alive == Alive::No && self.ended.is_none() {
            let gap = Gap::new(Fact::Exit, "how and when the process ended was not seen");
            return Verdict { gaps: vec![gap], ..of(Became::Exited, due_ns, None) };
        }
        // Pauses between attempts may grow longer, so half a window counts.
        let still_tries = self.last_failed_ns.saturating_add(window_ns / 2) > due_ns;
        match another {
            Some(another) if self.has_moved() || !still_tries => another,
            _ if still_tries => of(Became::StillFailing, due_ns, None),
            _ => of(Became::RunningWithout, due_ns, None),
        }
    }

    fn answer(&self, waiting: &Waiting, verdict: Verdict) -> Told {
        let Verdict { became, at_ns, by, bound, exit, gaps } = verdict;
        let unit = self.unit.clone().map(|(kind, name)| OfUnit {
            name,
            kind,
            owner: self.service.as_ref().and_then(|service| service.owner),
            restarted: self.restarted.then_some(true),
            result: None,
            restarts: None,
        });
        let since = |ns: u64| at_ns.saturating_sub(ns);
        let time = SignedDuration::from_nanos(i64::try_from(since(self.opened_ns)).unwrap_or(0));
        let outcome = Outcome {
            schema: OUTCOME.to_owned(),
            id: waiting.id.clone(),
            time: self.opened.checked_add(time).unwrap_or(self.opened),
            outcome: became,
            after_ms: since(waiting.first_ns) / 1_000_000,
            tries: waiting.count.saturating_add(self.tries.saturating_sub(waiting.tries)),
            protocol: self.target.protocol,
            address: self.target.address,
            port: self.target.port,
            bound,
            process: by,
            exit,
            unit,
            netns: self.netns.clone(),
            gaps,
        };
        let ask = self.service.clone().filter(|_| became == Became::Exited);
        Told { outcome, ask }
    }
}

/// Returns the process of a record. Its name may contain a secret, like any text of a process.
fn actor(raw: &RawFollowed) -> Actor {
    let mut comm = raw.comm.clone();
    Redaction::name(&mut comm);
    Actor { pid: raw.pid, comm: Some(comm) }
}

fn address_of(bound: &Bound) -> SocketAddr {
    SocketAddr::new(bound.address, bound.port)
}
