//! What `portwatch free` did about a port and holder, and who ran it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{MOST, outcomes::times};
use crate::event::{Action, action::Result as Came};

/// A port and what held it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Freeing {
    port: u16,
    protocol: &'static str,
    netns: String,
    /// The holder's unit or program; `null` if nothing blocked the port.
    holder: Option<String>,
}

/// How often the port was freed from that holder.
#[derive(Debug, Serialize)]
pub struct Freed {
    #[serde(flatten)]
    what: Freeing,
    /// Number of times that the port came free.
    freed: u64,
    /// Number of times that it did not: refused, failed, taken by another process …
    not_freed: BTreeMap<String, u64>,
    /// The users, and how often each freed it.
    by: BTreeMap<String, u64>,
    /// The time of the first one.
    first: Timestamp,
    /// The time of the last one.
    last: Timestamp,
}

/// All actions so far, in limited memory.
#[derive(Debug, Default)]
pub struct Actions {
    by_holder: BTreeMap<Freeing, Freed>,
    left_out: u64,
}

impl Actions {
    /// Adds one.
    pub fn add(&mut self, action: &Action) {
        let holder = action.before.as_ref().and_then(|diagnosis| diagnosis.holder.as_ref());
        let what = Freeing {
            port: action.port,
            protocol: action.protocol.into(),
            netns: super::name_of_netns(&action.netns),
            holder: holder.and_then(|holder| holder.unit.clone().or_else(|| holder.comm.clone())),
        };
        if self.by_holder.len() >= MOST && !self.by_holder.contains_key(&what) {
            self.left_out += 1;
            return;
        }
        let freed = self.by_holder.entry(what.clone()).or_insert_with(|| Freed {
            what,
            freed: 0,
            not_freed: BTreeMap::new(),
            by: BTreeMap::new(),
            first: action.time,
            last: action.time,
        });
        freed.first = freed.first.min(action.time);
        freed.last = freed.last.max(action.time);
        match action.result {
            Came::Freed | Came::Waited | Came::AlreadyFree => {
                freed.freed += 1;
                let by = action.by();
                let has_space = freed.by.len() < MOST_USERS || freed.by.contains_key(&by);
                let by = if has_space { by } else { OTHERS.to_owned() };
                *freed.by.entry(by).or_default() += 1;
            }
            other => *freed.not_freed.entry(other.to_string()).or_default() += 1,
        }
    }

    /// Returns all of them, the most frequent first, and the number of actions above the limit.
    pub fn all(self) -> (Vec<Freed>, u64) {
        let mut all: Vec<_> = self.by_holder.into_values().collect();
        all.sort_by(|a, b| b.freed.cmp(&a.freed).then_with(|| a.what.cmp(&b.what)));
        (all, self.left_out)
    }
}

/// The most users that are counted for one port.
const MOST_USERS: usize = 100;
/// What stands for the users above that.
const OTHERS: &str = "others";

impl Freed {
    /// Returns a sentence like `port 8080 held by java: freed 3 times (anna twice, root once)`.
    pub fn words(&self) -> String {
        let holder = self.what.holder.as_ref();
        let holder = holder.map(|holder| format!(" held by {holder}")).unwrap_or_default();
        let each = |counts: &BTreeMap<String, u64>| {
            let each = counts.iter().map(|(name, count)| format!("{name} {}", times(*count)));
            each.collect::<Vec<_>>().join(", ")
        };
        let freed = match self.freed {
            0 => "never freed".to_owned(),
            count => format!("freed {} ({})", times(count), each(&self.by)),
        };
        let not = each(&self.not_freed).replace('_', " ");
        let not = if not.is_empty() { not } else { format!("; {not}") };
        format!("port {}{holder}: {freed} by portwatch free{not}", self.what.port)
    }
}
