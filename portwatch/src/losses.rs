//! What was dropped, by place, until it has been said in the stream.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The places before the sinks; each sink is one more.
pub const PLACES: [&str; 7] =
    ["ring", "attempt_missing", "attempt_unrecorded", "decode", "queue", "source", "share"];

/// Counts of losses that the stream does not know of yet.
#[derive(Debug, Default)]
pub struct Losses {
    pending: Mutex<BTreeMap<&'static str, u64>>,
}

impl Losses {
    /// Counts `count` records lost at `place`.
    pub fn add(&self, place: &'static str, count: u64) {
        *self.lock().entry(place).or_default() += count;
    }

    /// Offers each pending count to `say`; what it does not take stays.
    pub fn report(&self, mut say: impl FnMut(&'static str, u64) -> bool) {
        self.lock().retain(|place, count| !say(place, *count));
    }

    /// Whether there is something to report.
    pub fn are_pending(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Counts are valid whatever a panicking thread was doing.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_offered_again() {
        let losses = Losses::default();
        losses.add("ring", 2);
        losses.add("ring", 3);
        losses.report(|_, _| false);
        let mut said = Vec::new();
        losses.report(|place, count| {
            said.push((place, count));
            true
        });
        losses.report(|_, _| unreachable!("all was said"));
        assert_eq!(said, [("ring", 5)]);
    }
}
