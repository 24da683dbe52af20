//! Summarizes identical failures: one event is reported at once, and one with their count when
//! the window ends. Nothing is reported later than that, and nothing is reported twice: each
//! failed bind is counted in exactly one event.
//!
//! From its second failure on, the failures of a process are only counted. If several processes
//! fail, the first few are reported each: a unit that is restarted again and again is soon a
//! crash loop, while identical programs without a unit may belong to different people.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use portwatch_common::{Crowd, Source, Tenant};

use crate::{
    decode::RawFailure,
    diagnose::Cause,
    event::Event,
    evidence::{Protocol, Stage},
    kernel::limits::CountedBy,
    redact::Unredacted,
};

mod counted;

use super::room::{make_room, shrink};
use counted::Counted;

/// How many failures of a source are enriched each second. The others are assumed to be equal
/// to the last enriched one.
const LOOKS: u32 = 8;
const LOOKS_PER: Duration = Duration::from_secs(1);
/// How many processes of a unit or container are reported individually.
const TOLD_OF_UNIT: u32 = 8;
/// How many processes of a program without a unit or container are reported individually.
const TOLD_OF_PROGRAM: u32 = 64;
/// The most groups of each kind that are kept. To make space, the tenant with the most groups
/// loses one.
const MOST_GROUPS: usize = 512;
/// The most bytes of memory of all groups, each of which contains a whole event.
const MOST_BYTES: usize = 16 << 20;
const MOST_SOURCES: usize = 4096;
const MOST_CROWDS: usize = 1024;
const MOST_TOLD: usize = 4096;

/// The current counts.
pub struct Storms {
    window: Duration,
    sources: HashMap<Source, Looked>,
    /// By the properties that different processes share.
    crowds: HashMap<Crowd, Looked>,
    told: HashMap<Failing, Told>,
    groups: HashMap<Group, Counted>,
    /// The counts of groups that were displaced.
    displaced: Vec<Event>,
    /// The earliest time at which a window ends.
    next: Option<Instant>,
}

/// The properties that identical failures of different processes share.
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

/// Failures that are reported together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    failing: Failing,
    /// The process and its start time; `None` for all processes beyond the first few.
    process: Option<(u32, Option<Timestamp>)>,
}

/// The last enrichment for a source or for processes with the same properties.
struct Looked {
    tenant: Tenant,
    /// The last enrichment.
    last: Instant,
    second: Instant,
    /// The number of enrichments in the second that started then.
    looks: u32,
    culprit: Option<u64>,
    started_ns: Option<u64>,
    comm: String,
    cmdline: Unredacted,
    group: Group,
    /// How many processes of that kind are reported individually.
    most: u32,
}

impl Looked {
    /// Returns whether it is the same process, as far as the kernel side knows.
    fn is_of(&self, raw: &RawFailure) -> bool {
        self.started_ns == raw.task.started_ns && self.comm == raw.task.comm
    }

    /// Returns whether it is the same program with the same arguments, as far as the kernel
    /// side knows.
    fn is_like(&self, raw: &RawFailure) -> bool {
        self.comm == raw.task.comm && self.cmdline == raw.task.cmdline
    }

    /// Returns whether the limit of enrichments is reached. Then the failure is assumed to be
    /// equal to the last one.
    fn is_enough(&mut self, same: bool, now: Instant) -> bool {
        if now.duration_since(self.second) >= LOOKS_PER {
            (self.second, self.looks) = (now, 0);
        }
        let enough = same && self.looks >= LOOKS;
        self.looks += u32::from(!enough);
        enough
    }
}

/// How many processes were reported individually.
struct Told {
    tenant: Tenant,
    processes: u32,
    last: Instant,
}

impl Storms {
    /// Creates counts over `window`; zero reports each failure.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            sources: HashMap::new(),
            crowds: HashMap::new(),
            told: HashMap::new(),
            groups: HashMap::new(),
            displaced: Vec::new(),
            next: None,
        }
    }

    /// Sets the length of windows from now on; those that have started end as planned.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Returns whether the failure is equal to one that was just enriched, and was counted with
    /// it.
    pub fn absorb(&mut self, raw: &RawFailure, now: Instant) -> bool {
        let enough = if let Some(looked) = self.sources.get_mut(&raw.source) {
            let same = looked.culprit == culprit(raw) && looked.started_ns == raw.task.started_ns;
            looked.is_enough(same, now).then_some(&looked.group)
        } else if let Some(looked) = self.crowds.get(&raw.crowd()) {
            // While processes are still reported individually, each of them is enriched.
            let same = looked.group.process.is_none()
                && looked.culprit == culprit(raw)
                && looked.is_like(raw);
            let lately = now.duration_since(looked.last) < LOOKS_PER / LOOKS;
            (same && lately).then_some(&looked.group)
        } else {
            None
        };
        let Some(counted) = enough.and_then(|group| self.groups.get_mut(group)) else {
            return false;
        };
        counted.add(1, raw.bind.at_ns, raw.bind.at_ns);
        true
    }

    /// Adds an enriched failure. Returns it if it is to be reported now.
    pub fn admit(&mut self, raw: &RawFailure, event: Event, now: Instant) -> Option<Event> {
        if self.window.is_zero() {
            return Some(event);
        }
        let (mut failing, mut most) = failing(&event);
        let mut process = Some((event.process.pid, event.process.started));
        // A process that has exited in the meantime has less evidence, and is still the same
        // process.
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
        let tenant = raw.tenant();
        self.remember(raw, &group, most, now);
        if !self.told.contains_key(&failing) {
            make_room(&mut self.told, MOST_TOLD, |told| (told.tenant, told.last));
        }
        let told = self.told.entry(failing).or_insert(Told { tenant, processes: 0, last: now });
        told.last = now;
        told.processes += u32::from(tell);
        let counted =
            self.group(group, now, |due| Counted::new(tenant, event.clone(), raw.bind.at_ns, due));
        let told = if tell {
            Some(event)
        } else {
            counted.add(1, raw.bind.at_ns, raw.bind.at_ns);
            counted.look(event, raw.bind.at_ns);
            None
        };
        self.shrink();
        told
    }

    /// Displaces groups until all groups together are within the limit of bytes.
    fn shrink(&mut self) {
        let owner = |group: &Counted| (group.tenant, group.due);
        while let Some(mut gone) = shrink(&mut self.groups, MOST_BYTES, |it| it.size, owner) {
            self.displaced.extend(gone.summary());
        }
    }

    /// Returns the counts of a group, or new ones if it has none.
    fn group(
        &mut self,
        group: Group,
        now: Instant,
        new: impl FnOnce(Instant) -> Counted,
    ) -> &mut Counted {
        if !self.groups.contains_key(&group) {
            let gone = make_room(&mut self.groups, MOST_GROUPS, |group| (group.tenant, group.due));
            self.displaced.extend(gone.and_then(|mut counted| counted.summary()));
        }
        let due = now + self.window;
        let next = &mut self.next;
        self.groups.entry(group).or_insert_with(|| {
            *next = Some(next.map_or(due, |next| next.min(due)));
            new(due)
        })
    }

    fn remember(&mut self, raw: &RawFailure, group: &Group, most: u32, now: Instant) {
        let looked = |before: Option<&Looked>| {
            let (second, looks) = before.map_or((now, 1), |looked| (looked.second, looked.looks));
            Looked {
                tenant: raw.tenant(),
                last: now,
                second,
                looks,
                culprit: culprit(raw),
                started_ns: raw.task.started_ns,
                comm: raw.task.comm.clone(),
                cmdline: raw.task.cmdline.clone(),
                group: group.clone(),
                most,
            }
        };
        let (source, crowd) = (raw.source, raw.crowd());
        let [of_source, of_crowd] =
            [self.sources.get(&source), self.crowds.get(&crowd)].map(looked);
        if !self.sources.contains_key(&source) {
            make_room(&mut self.sources, MOST_SOURCES, |looked| (looked.tenant, looked.last));
        }
        if !self.crowds.contains_key(&crowd) {
            make_room(&mut self.crowds, MOST_CROWDS, |looked| (looked.tenant, looked.last));
        }
        self.sources.insert(source, of_source);
        self.crowds.insert(crowd, of_crowd);
    }

    /// Counts failed binds that the kernel side has only counted. Returns false if the failing
    /// process is unknown: then they are lost.
    pub fn count(&mut self, by: &CountedBy, tenant: Tenant, count: u64, last_ns: u64) -> bool {
        let crowd = match by {
            CountedBy::Source(source) => {
                if let Some(looked) = self.sources.get(source)
                    && let Some(counted) = self.groups.get_mut(&looked.group)
                {
                    counted.add(count, last_ns, last_ns);
                    return true;
                }
                Crowd::of(tenant, source)
            }
            CountedBy::Crowd(crowd) => *crowd,
            CountedBy::Tenant => return false,
        };
        // They belong to other processes than the one that was enriched last.
        let Some(looked) = self.crowds.get(&crowd) else { return false };
        let all = Group { failing: looked.group.failing.clone(), process: None };
        let Some(last) = self.groups.get(&looked.group) else { return false };
        let (event, at_ns) = (last.event.clone(), last.at_ns);
        let new = |due| Counted::new(tenant, event, at_ns, due);
        self.group(all, Instant::now(), new).add(count, last_ns, last_ns);
        self.shrink();
        true
    }

    /// Returns when a window ends; `None` if nothing is counted.
    pub fn next_end(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// Reports the counts of windows that have ended, one by one, because copies of all groups
    /// at once would need twice their memory.
    pub fn ended(&mut self, now: Instant, mut tell: impl FnMut(Event)) {
        std::mem::take(&mut self.displaced).into_iter().for_each(&mut tell);
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let window = self.window;
        self.groups.retain(|_, counted| {
            if counted.due > now {
                return true;
            }
            counted.due = now + window;
            let summary = counted.summary();
            let goes_on = summary.is_some();
            summary.into_iter().for_each(&mut tell);
            goes_on
        });
        let groups = &self.groups;
        self.sources.retain(|_, looked| groups.contains_key(&looked.group));
        self.crowds.retain(|_, looked| groups.contains_key(&looked.group));
        self.told.retain(|_, told| now.duration_since(told.last) < window * 2);
        self.next = self.groups.values().map(|counted| counted.due).min();
    }

    /// Returns all counts. It is called when the agent ends.
    pub fn all(self) -> impl Iterator<Item = Event> {
        let summaries = self.groups.into_values().filter_map(|mut counted| counted.summary());
        self.displaced.into_iter().chain(summaries)
    }
}

fn culprit(raw: &RawFailure) -> Option<u64> {
    raw.culprit.as_ref().and_then(|culprit| culprit.cookie)
}

/// Returns the properties that the failure shares with others, and how many processes of that
/// kind are reported individually.
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
