//! Counts what a run covers: a run that covers nothing proves nothing.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use portwatch::conflict::Clause;
use strum::VariantArray as _;

use crate::{bugs::Bug, machine::Expected, scenario::Fate, steps::Step};

#[derive(Default)]
pub struct Tally {
    steps: u32,
    successes: u32,
    refusals: u32,
    /// Blocked by the rule, but allowed by the bucket.
    passes: u32,
    clauses: BTreeMap<Clause, u32>,
    of_listen: u32,
    of_any_port: u32,
    fates: BTreeMap<Fate, u32>,
    clients: u32,
    in_crowd: u32,
    bugs: BTreeMap<Bug, u32>,
}

impl Tally {
    pub fn counts(&mut self, step: &Step, expected: Expected, in_crowd: bool) {
        self.steps += 1;
        self.in_crowd += u32::from(in_crowd && matches!(step, Step::Bind { .. }));
        match (step, expected) {
            (Step::Child { fate, .. }, _) => *self.fates.entry(*fate).or_default() += 1,
            (
                Step::Bind { any_port, .. } | Step::Listen { any_port, .. },
                Expected::Refusal(_, clause),
            ) => {
                self.refusals += 1;
                self.of_listen += u32::from(matches!(step, Step::Listen { .. }));
                self.of_any_port += u32::from(*any_port);
                *self.clauses.entry(clause).or_default() += 1;
            }
            (Step::Bind { .. } | Step::Listen { .. }, Expected::Success) => self.successes += 1,
            (Step::Bind { .. } | Step::Listen { .. }, Expected::Passed(..)) => {
                self.successes += 1;
                self.passes += 1;
            }
            (Step::Client { .. }, Expected::Success) => self.clients += 1,
            _ => {}
        }
    }

    pub fn excuses(&mut self, bug: Bug) {
        *self.bugs.entry(bug).or_default() += 1;
    }

    /// Every rule and fate must have occurred, and failures as often as a random test of binds
    /// should have them.
    pub fn assert_not_vacuous(&self, scenarios: u32) {
        let at_least = |count: u32, per_mille: u32, what: &str| {
            let least = u64::from(scenarios) * u64::from(per_mille) / 1000;
            assert!(
                u64::from(count) >= least,
                "{what} {count} times only, in {scenarios} scenarios"
            );
        };
        at_least(self.successes, 1500, "success");
        at_least(self.refusals, 500, "refusal");
        at_least(self.passes, 5, "the fast path");
        at_least(self.in_crowd, 200, "a bind in a crowd of UDP sockets");
        at_least(self.clients, 100, "a port of connect(2)");
        at_least(self.of_listen, 50, "refusal of listen");
        at_least(self.of_any_port, 50, "refusal of port 0");
        // The rule itself never returns these two: they are for sockets that are partly
        // unknown.
        let guessed = [Clause::OneLacksReuseAddr, Clause::ReusePortNotShared];
        for clause in Clause::VARIANTS.iter().filter(|clause| !guessed.contains(clause)) {
            at_least(self.clauses.get(clause).copied().unwrap_or(0), 2, &format!("{clause:?}"));
        }
        for fate in Fate::VARIANTS {
            at_least(self.fates.get(fate).copied().unwrap_or(0), 10, &format!("{fate:?}"));
        }
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Self { steps, successes, passes, refusals, of_listen, of_any_port, .. } = self;
        writeln!(f, "{steps} steps")?;
        writeln!(
            f,
            "binds and listens: {successes} passed, {passes} of them against the rule, by the bucket"
        )?;
        writeln!(
            f,
            "{refusals} were refused, {of_listen} of them listens, {of_any_port} for any port"
        )?;
        writeln!(f, "{} were in a crowd of UDP sockets", self.in_crowd)?;
        writeln!(f, "by clause: {:?}", self.clauses)?;
        writeln!(f, "connections: {:?}, and {} of clients", self.fates, self.clients)?;
        write!(f, "bugs met: {:?}", self.bugs)
    }
}
