//! Recurring failed binds, by port and holder, over days and deploys.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    diagnose::{Diagnosis, program},
    event::{Action, Outcome},
    evidence::{Evidence, Netns, Process, State},
};

mod deploys;
mod freed;
mod outcomes;
pub mod render;

use deploys::Deploys;
use freed::{Actions, Freed};
use outcomes::{Outcomes, Pending};

/// The most patterns and programs that are kept separately. Others are only counted.
const MOST: usize = 10_000;

/// How many failed binds of a program are needed to conclude that it never sets an option.
const FEWEST: u64 = 3;

/// All events so far, in limited memory.
#[derive(Debug, Default)]
pub struct History {
    patterns: BTreeMap<Key, Pattern>,
    programs: BTreeMap<Identity, Options>,
    /// Events whose outcome has not arrived yet.
    pending: Pending<Key>,
    actions: Actions,
    left_out: u64,
}

/// A program's name, and what distinguishes it from other programs with that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    name: String,
    program: String,
}

/// The properties that the failed binds of one pattern share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Key {
    port: u16,
    protocol: &'static str,
    /// `host`, or the name of the namespace.
    netns: String,
    /// The holder's unit, container or program. Without a holder it is the cause.
    holder: String,
    /// The program with that name.
    #[serde(skip)]
    program: String,
    /// Its class.
    class: Option<&'static str>,
}

#[derive(Debug)]
struct Pattern {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    causes: BTreeMap<&'static str, u64>,
    outcomes: Outcomes,
    deploys: Deploys,
    /// The holder's process, if it is always the same one.
    process: Option<(u32, Option<Timestamp>)>,
    one_process: bool,
}

/// The options of a program's binds.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    with_reuseaddr: u64,
    without_reuseaddr: u64,
    /// Failed binds with evidence. The others are assumed to be equal to them.
    looked_into: u64,
}

/// The history, ready to print.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Failed binds by port and holder, the most frequent first.
    pub patterns: Vec<Row>,
    /// Programs that failed several times and never set SO_REUSEADDR.
    pub never_sets_reuseaddr: Vec<Program>,
    /// Failed binds of patterns above the limit.
    pub left_out: u64,
    /// What `portwatch free` did, by port and holder.
    pub freed: Vec<Freed>,
    /// Actions of `portwatch free` about ports and holders above the limit.
    pub freed_left_out: u64,
}

/// One pattern.
#[derive(Debug, Serialize)]
pub struct Row {
    #[serde(flatten)]
    key: Key,
    /// The number of failed binds.
    pub count: u64,
    /// The time of the first one.
    pub first: Timestamp,
    /// The time of the last one.
    pub last: Timestamp,
    /// The number of separate deploys of the programs that failed.
    pub deploys: u64,
    /// Whether the holder was the same process each time.
    pub same_process: bool,
    /// The failing programs.
    pub failing: Vec<String>,
    /// Failed binds by cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// The outcomes, counted in events.
    pub outcomes: Outcomes,
    /// A conclusion in a sentence, if there is one.
    pub finding: Option<String>,
}

/// A program and how often its binds failed.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Its unit, container or name.
    pub name: String,
    /// Failed binds without the option.
    pub count: u64,
    /// How many of these had evidence. The others were identical to them.
    pub samples: u64,
}

impl History {
    /// Adds the event `id`, which summarizes `count` identical failed binds.
    pub fn add(&mut self, id: &str, evidence: &Evidence, diagnosis: &Diagnosis, count: u64) {
        let failing = identity_of(&evidence.process);
        self.note_options(&failing, evidence.failure.reuseaddr, count);
        let key = key(evidence, diagnosis);
        if self.patterns.len() >= MOST && !self.patterns.contains_key(&key) {
            self.left_out += count;
            return;
        }
        let process = diagnosis.holder.as_ref().and_then(|h| Some((h.pid?, h.started)));
        let time = evidence.time;
        self.pending.add(id, key.clone());
        let pattern = self.patterns.entry(key).or_insert_with(|| Pattern {
            count: 0,
            first: time,
            last: time,
            causes: BTreeMap::new(),
            outcomes: Outcomes::default(),
            deploys: Deploys::default(),
            process,
            // A pid alone may have been reused.
            one_process: process.is_some_and(|(_, started)| started.is_some()),
        });
        pattern.count += count;
        pattern.first = pattern.first.min(time);
        pattern.last = pattern.last.max(time);
        pattern.one_process &= pattern.process == process;
        *pattern.causes.entry(diagnosis.cause.into()).or_default() += count;
        pattern.deploys.note(&failing, evidence);
    }

    /// Adds an outcome to the pattern of its event.
    pub fn became(&mut self, outcome: &Outcome) {
        if let Some(key) = self.pending.take(&outcome.id)
            && let Some(pattern) = self.patterns.get_mut(&key)
        {
            pattern.outcomes.add(outcome);
        }
    }

    /// Adds what `portwatch free` did.
    pub fn acted(&mut self, action: &Action) {
        self.actions.add(action);
    }

    fn note_options(&mut self, program: &Identity, reuseaddr: Option<bool>, count: u64) {
        let Some(reuseaddr) = reuseaddr else { return };
        if self.programs.len() >= MOST && !self.programs.contains_key(program) {
            return;
        }
        let options = self.programs.entry(program.clone()).or_default();
        options.looked_into += 1;
        if reuseaddr {
            options.with_reuseaddr += count;
        } else {
            options.without_reuseaddr += count;
        }
    }

    /// Returns the report.
    pub fn report(self) -> Report {
        let mut patterns: Vec<_> =
            self.patterns.into_iter().map(|(key, pattern)| row(key, pattern)).collect();
        patterns.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        let never = self
            .programs
            .into_iter()
            .filter(|(_, options)| options.with_reuseaddr == 0 && options.looked_into >= FEWEST);
        let mut never: Vec<_> = never
            .map(|(program, options)| Program {
                name: program.name,
                count: options.without_reuseaddr,
                samples: options.looked_into,
            })
            .collect();
        never.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        let (freed, freed_left_out) = self.actions.all();
        let left_out = self.left_out;
        Report { patterns, never_sets_reuseaddr: never, left_out, freed, freed_left_out }
    }
}

fn row(key: Key, pattern: Pattern) -> Row {
    let Pattern { count, first, last, causes, outcomes, deploys, process: _, one_process } =
        pattern;
    let class = key.class.unwrap_or("holder").replace('_', " ");
    // The deploys of one program count: several programs that failed once each are not a
    // series.
    let (program, times) = deploys.most().unwrap_or_default();
    let names = deploys.names();
    let of_whom = if names.len() > 1 { format!(" of {program}") } else { String::new() };
    let finding = (times > 1).then(|| match one_process {
        true => format!("the same {class}, {times} deploys{of_whom} in a row"),
        false => format!("{}, {times} deploys{of_whom} in a row", key.holder),
    });
    Row {
        key,
        count,
        first,
        last,
        deploys: deploys.count(),
        same_process: one_process,
        failing: names,
        causes,
        outcomes,
        finding,
    }
}

fn key(evidence: &Evidence, diagnosis: &Diagnosis) -> Key {
    let holder = diagnosis.holder.as_ref();
    let process = holder.and_then(|holder| holder.pid).and_then(|pid| {
        let mut holders = evidence.sockets.iter().flat_map(|socket| &socket.holders);
        let last = evidence.last_holder.as_ref().map(|last| &last.process);
        holders.find(|process| process.pid == pid).or(last.filter(|last| last.pid == pid))
    });
    let in_the_way = || {
        let only_left = evidence.sockets.iter().all(|socket| socket.state == State::TimeWait);
        if only_left && evidence.time_wait.count > 0 { "TIME-WAIT" } else { "nobody known" }
    };
    Key {
        port: evidence.failure.port,
        protocol: evidence.failure.protocol.into(),
        netns: name_of_netns(&evidence.netns),
        holder: process
            .map(name_of)
            .or_else(|| holder.and_then(|holder| holder.comm.clone()))
            .unwrap_or_else(|| in_the_way().to_owned()),
        program: process.map(|process| identity_of(process).program).unwrap_or_default(),
        class: holder.map(|holder| holder.class.into()),
    }
}

fn name_of_netns(netns: &Netns) -> String {
    match (&netns.name, netns.host) {
        (Some(name), _) => name.clone(),
        (None, Some(true)) => "host".to_owned(),
        (None, _) => netns.inode.map_or("?".to_owned(), |inode| inode.to_string()),
    }
}

/// Returns the name of a process, and what identifies its program: the image of a container,
/// nothing more for a unit, and otherwise its file, because many programs are called `java`.
fn identity_of(process: &Process) -> Identity {
    let name = name_of(process);
    let image = process.workload.as_ref().and_then(|workload| workload.image.clone());
    let is_named = process.workload.as_ref().is_some_and(|workload| workload.name.is_some())
        || process.container.is_some()
        || (process.unit.is_some() && process.session.is_none());
    let by_file = || if is_named { String::new() } else { program::identity(process) };
    Identity { name, program: image.unwrap_or_else(by_file) }
}

/// Returns a name that stays the same after a restart. A login session has another number each
/// time.
fn name_of(process: &Process) -> String {
    let workload = process.workload.as_ref().and_then(|workload| workload.name.clone());
    let container = process.container.as_ref().map(|id| id.chars().take(12).collect());
    let unit = process.unit.clone().filter(|_| process.session.is_none());
    let file = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).map(str::to_owned);
    let program = process.comm.clone().or(file);
    workload.or(container).or(unit).or(program).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests;
