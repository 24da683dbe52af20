//! Equal failures become one event at once, and one with their number when the
//! window ends. Nothing is told later than that, and nothing twice: each refusal is
//! in exactly one event's count.
//!
//! A process that fails again is only counted from the second time on. Of several
//! processes the first few are told each: one unit that is started again and again
//! is a crash loop soon, equal programs without a unit may be different people's.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use portwatch_common::Source;

use crate::{
    decode::RawFailure,
    diagnose::Cause,
    event::Event,
    evidence::{Protocol, Stage},
};

/// Failures of a source that are looked into each second; the others are taken for
/// equal to the last of them.
const LOOKS: u32 = 8;
const LOOKS_PER: Duration = Duration::from_secs(1);
/// Processes of a unit or container that are told each.
const TOLD_OF_UNIT: u32 = 8;
/// Processes of a program without either.
const TOLD_OF_PROGRAM: u32 = 64;
/// What is kept in mind of each kind. More than that is told one by one.
const MOST_GROUPS: usize = 512;
const MOST_SOURCES: usize = 4096;

/// What is counted at present.
pub struct Storms {
    window: Duration,
    sources: HashMap<Source, Looked>,
    told: HashMap<Failing, Told>,
    groups: HashMap<Group, Counted>,
    /// When a window ends, at the earliest.
    next: Option<Instant>,
}

/// What makes failures of different processes equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Failing {
    /// The unit, container or program.
    image: String,
    netns: (Option<u64>, Option<u32>),
    protocol: Protocol,
    stage: Stage,
    address: IpAddr,
    port: u16,
    cause: Cause,
    holder: Option<u32>,
}

/// Failures that are told together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    failing: Failing,
    /// The process and its start; `None` for all those that are not told each.
    process: Option<(u32, Option<Timestamp>)>,
}

/// What was last found out about a source.
struct Looked {
    second: Instant,
    looks: u32,
    culprit: Option<u64>,
    started_ns: Option<u64>,
    comm: String,
    group: Group,
    /// How many processes of that kind are told each.
    most: u32,
}

impl Looked {
    /// Whether it is the same process, as far as the kernel side knows.
    fn is_of(&self, raw: &RawFailure) -> bool {
        self.started_ns == raw.task.started_ns && self.comm == raw.task.comm
    }
}

/// How many processes were told each.
struct Told {
    processes: u32,
    last: Instant,
}

struct Counted {
    /// The last that was looked into.
    event: Event,
    /// When that was, in nanoseconds of `CLOCK_BOOTTIME`.
    at_ns: u64,
    count: u64,
    first_ns: u64,
    last_ns: u64,
    due: Instant,
}

impl Counted {
    fn new(event: Event, at_ns: u64, due: Instant) -> Self {
        Self { event, at_ns, count: 0, first_ns: 0, last_ns: 0, due }
    }

    fn add(&mut self, count: u64, first_ns: u64, last_ns: u64) {
        if self.count == 0 {
            self.first_ns = first_ns;
        }
        self.count += count;
        self.last_ns = self.last_ns.max(last_ns);
    }

    /// The event with the number, which begins anew; `None` if there was none.
    fn summary(&mut self) -> Option<Event> {
        let count = std::mem::take(&mut self.count);
        let last_ns = std::mem::take(&mut self.last_ns);
        (count > 0).then(|| Event {
            id: format!("{}-{last_ns:x}", self.event.id),
            count,
            first_seen: Some(self.time_of(self.first_ns)),
            last_seen: Some(self.time_of(last_ns)),
            ..self.event.clone()
        })
    }

    /// The wall clock's time, by what it was when the last look was taken.
    fn time_of(&self, at_ns: u64) -> Timestamp {
        let since = i128::from(at_ns) - i128::from(self.at_ns);
        let since = SignedDuration::from_nanos(i64::try_from(since).unwrap_or(0));
        self.event.time.checked_add(since).unwrap_or(self.event.time)
    }
}

impl Storms {
    /// Counts over `window`; zero means that each failure is told.
    pub fn new(window: Duration) -> Self {
        let (sources, told, groups) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { window, sources, told, groups, next: None }
    }

    /// From now on windows are as long as this; those that have begun end as they would.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Whether the failure is one more of those that were looked into a moment ago,
    /// and has been counted as that.
    pub fn absorb(&mut self, raw: &RawFailure, now: Instant) -> bool {
        let Some(looked) = self.sources.get_mut(&raw.source) else { return false };
        if now.duration_since(looked.second) >= LOOKS_PER {
            (looked.second, looked.looks) = (now, 0);
        }
        let same = looked.culprit == culprit(raw) && looked.started_ns == raw.task.started_ns;
        if !same || looked.looks < LOOKS {
            looked.looks += 1;
            return false;
        }
        let Some(counted) = self.groups.get_mut(&looked.group) else { return false };
        counted.add(1, raw.at_ns, raw.at_ns);
        true
    }

    /// Takes in a failure that has been looked into. Gives it back if it is to be
    /// told now.
    pub fn admit(&mut self, raw: &RawFailure, event: Event, now: Instant) -> Option<Event> {
        if self.window.is_zero() {
            return Some(event);
        }
        let (mut failing, mut most) = failing(&event);
        let mut process = Some((event.process.pid, event.process.started));
        // A process that has gone since tells less of itself, and is the same all the same.
        let before = self.sources.get(&raw.source);
        if let Some(looked) = before.filter(|looked| looked.is_of(raw))
            && event.process.exe.is_none()
        {
            failing.image.clone_from(&looked.group.failing.image);
            (process, most) = (looked.group.process.or(process), looked.most);
        }
        let own = Group { failing: failing.clone(), process };
        let all = Group { failing: failing.clone(), process: None };
        let told = self.told.get(&failing).map_or(0, |told| told.processes);
        let (group, tell) = if self.groups.contains_key(&own) {
            (own, false)
        } else if told < most {
            (own, true)
        } else {
            (all, false)
        };
        self.remember(raw, &group, most, now);
        let due = now + self.window;
        let full = self.groups.len() >= MOST_GROUPS;
        let counted = match self.groups.get_mut(&group) {
            Some(counted) => counted,
            None if full => return Some(event),
            None => {
                self.next = Some(self.next.map_or(due, |next| next.min(due)));
                let begun = Counted::new(event.clone(), raw.at_ns, due);
                self.groups.entry(group).or_insert(begun)
            }
        };
        let told = self.told.entry(failing).or_insert(Told { processes: 0, last: now });
        told.last = now;
        if tell {
            told.processes += 1;
            return Some(event);
        }
        counted.add(1, raw.at_ns, raw.at_ns);
        (counted.event, counted.at_ns) = (event, raw.at_ns);
        None
    }

    fn remember(&mut self, raw: &RawFailure, group: &Group, most: u32, now: Instant) {
        let before = self.sources.get(&raw.source);
        let (second, looks) = before.map_or((now, 1), |looked| (looked.second, looked.looks));
        if before.is_some() || self.sources.len() < MOST_SOURCES {
            let looked = Looked {
                second,
                looks,
                culprit: culprit(raw),
                started_ns: raw.task.started_ns,
                comm: raw.task.comm.clone(),
                group: group.clone(),
                most,
            };
            self.sources.insert(raw.source, looked);
        }
    }

    /// Counts refusals that the kernel side has only counted. False if nothing is
    /// known of their source: then they are lost.
    pub fn count(&mut self, source: &Source, count: u64, last_ns: u64) -> bool {
        let looked = self.sources.get(source);
        let Some(counted) = looked.and_then(|looked| self.groups.get_mut(&looked.group)) else {
            return false;
        };
        counted.add(count, last_ns, last_ns);
        true
    }

    /// How soon a window ends; `None` if nothing is counted.
    pub fn next_end(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// What the windows that have ended by now have counted.
    pub fn ended(&mut self, now: Instant) -> Vec<Event> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut summaries = Vec::new();
        let window = self.window;
        self.groups.retain(|_, counted| {
            if counted.due > now {
                return true;
            }
            counted.due = now + window;
            let summary = counted.summary();
            let goes_on = summary.is_some();
            summaries.extend(summary);
            goes_on
        });
        let groups = &self.groups;
        self.sources.retain(|_, looked| groups.contains_key(&looked.group));
        self.told.retain(|_, told| now.duration_since(told.last) < window * 2);
        self.next = self.groups.values().map(|counted| counted.due).min();
        summaries
    }

    /// What has been counted, when there is no time left to wait for.
    pub fn all(mut self) -> Vec<Event> {
        self.groups.values_mut().filter_map(Counted::summary).collect()
    }
}

fn culprit(raw: &RawFailure) -> Option<u64> {
    raw.culprit.as_ref().and_then(|culprit| culprit.cookie)
}

/// What the failure has in common with others, and how many of those are told each.
fn failing(event: &Event) -> (Failing, u32) {
    let Event { failure, process, netns, diagnosis, .. } = event;
    let managed = process.unit.as_ref().filter(|_| process.session.is_none());
    let workload = process.workload.as_ref().and_then(|workload| workload.name.as_ref());
    let (image, most) = match workload.or(process.container.as_ref()).or(managed) {
        Some(name) => (name.clone(), TOLD_OF_UNIT),
        None => {
            let known = [&process.exe, &process.comm].into_iter().flatten().next();
            (known.cloned().unwrap_or_default(), TOLD_OF_PROGRAM)
        }
    };
    let failing = Failing {
        image,
        netns: (netns.cookie, netns.inode),
        protocol: failure.protocol,
        stage: failure.stage,
        address: failure.address,
        port: failure.port,
        cause: diagnosis.cause,
        holder: diagnosis.holder.as_ref().and_then(|holder| holder.pid),
    };
    (failing, most)
}

#[cfg(test)]
mod tests;
