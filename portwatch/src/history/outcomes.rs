//! Outcomes of the failures of a pattern.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use serde::Serialize;

use crate::event::Outcome;

/// The most events that wait for their outcome. The newest ones are kept.
const MOST: usize = 16_384;

/// Number of events by outcome.
#[derive(Debug, Default, Serialize)]
pub struct Outcomes {
    /// The number of events with each outcome.
    by_kind: BTreeMap<&'static str, u64>,
    /// The number of events whose program exited with an error or was still failing.
    harmful: u64,
}

impl Outcomes {
    /// Counts an outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        *self.by_kind.entry(outcome.outcome.into()).or_default() += 1;
        self.harmful += u64::from(outcome.is_harm());
    }

    /// Returns a text like `recovered 40 times, hurt twice`, or `None` if nothing is known.
    pub fn words(&self) -> Option<String> {
        if self.by_kind.is_empty() {
            return None;
        }
        let count = |kind| self.by_kind.get(kind).copied().unwrap_or(0);
        let recovered = count("recovered");
        let all: u64 = self.by_kind.values().sum();
        let neither = all - recovered - self.harmful;
        let parts = [
            (recovered, "recovered"),
            (self.harmful, "hurt"),
            (neither, "went on without the port"),
        ];
        let said = parts.iter().filter(|(count, _)| *count > 0);
        let said: Vec<_> = said.map(|(count, what)| format!("{what} {}", times(*count))).collect();
        Some(said.join(", "))
    }
}

/// Returns `once`, `twice`, `3 times`.
pub(super) fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// The last events, by their id.
#[derive(Debug)]
pub struct Pending<T> {
    by_id: HashMap<Arc<str>, T>,
    order: VecDeque<Arc<str>>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Pending<T> {
    /// Adds an event. The oldest one is removed if there are too many.
    pub fn add(&mut self, id: &str, of: T) {
        let id: Arc<str> = id.into();
        if self.by_id.insert(Arc::clone(&id), of).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    /// Removes and returns the value of an id.
    pub fn take(&mut self, id: &str) -> Option<T> {
        self.by_id.remove(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::outcome::{Became, examples};

    #[test]
    fn outcomes_are_counted_in_words() {
        let mut outcomes = Outcomes::default();
        assert_eq!(outcomes.words(), None);
        for outcome in examples() {
            let many = if outcome.outcome == Became::Recovered { 40 } else { 1 };
            (0..many).for_each(|_| outcomes.add(&outcome));
        }
        let words = outcomes.words().unwrap();
        assert_eq!(words, "recovered 40 times, hurt 4 times, went on without the port twice");
    }

    #[test]
    fn only_the_last_events_wait() {
        let mut pending = Pending::default();
        (0..=MOST).for_each(|id| pending.add(&id.to_string(), id));
        assert_eq!(
            [pending.take("0"), pending.take("1"), pending.take("1")],
            [None, Some(1), None]
        );
    }
}
