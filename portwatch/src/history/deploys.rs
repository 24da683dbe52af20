//! Counts separate deploys among the failures of a pattern.
//!
//! A crash loop is one deploy, however often it fails. A new deploy has another command line or
//! executable, or a restart counter that starts again, or comes after a pause that is longer
//! than the pauses of supervisors.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Identity;
use crate::{
    evidence::{Evidence, Process},
    redact::Cmdline,
};

/// The most failing programs that are counted separately.
const MOST: usize = 16;
/// Supervisors restart sooner than this, or give up.
const PAUSE: SignedDuration = SignedDuration::from_mins(10);

/// The deploys of one pattern.
#[derive(Debug, Default)]
pub struct Deploys {
    by_program: BTreeMap<Identity, Last>,
}

#[derive(Debug)]
struct Last {
    deploys: u64,
    image: (Option<String>, Cmdline),
    restarts: Option<u32>,
    time: Timestamp,
}

impl Deploys {
    /// Adds one more failure of `program`.
    pub(super) fn note(&mut self, program: &Identity, evidence: &Evidence) {
        let Evidence { process, time, .. } = evidence;
        let now = Last {
            deploys: 1,
            image: image(process),
            restarts: process.supervisor.as_ref().and_then(|supervisor| supervisor.restarts),
            time: *time,
        };
        if let Some(last) = self.by_program.get_mut(program) {
            let another = u64::from(last.is_before(&now));
            *last = Last { deploys: last.deploys + another, ..now };
        } else if self.by_program.len() < MOST {
            self.by_program.insert(program.clone(), now);
        }
    }

    /// Returns the number of deploys of all failing programs.
    pub fn count(&self) -> u64 {
        self.by_program.values().map(|last| last.deploys).sum()
    }

    /// Returns the program with the most deploys, and their number.
    pub fn most(&self) -> Option<(String, u64)> {
        let most = self.by_program.iter().max_by_key(|(_, last)| last.deploys)?;
        Some((most.0.name.clone(), most.1.deploys))
    }

    /// Returns the failing programs.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.by_program.keys().map(|it| it.name.clone()).collect();
        names.dedup();
        names
    }
}

impl Last {
    fn is_before(&self, now: &Self) -> bool {
        let began_anew = matches!((self.restarts, now.restarts), (Some(a), Some(b)) if b < a);
        self.image != now.image || began_anew || now.time.duration_since(self.time) >= PAUSE
    }
}

fn image(process: &Process) -> (Option<String>, Cmdline) {
    (process.exe.clone(), process.cmdline.clone())
}
