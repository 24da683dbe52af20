//! Counts what was dropped, by stage of the pipeline, until the stream reports it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The stages before the sinks. Each sink is another stage.
pub const PLACES: [&str; 8] = [
    "ring", "attempt_missing", "attempt_unrecorded", "return_skipped", "decode", "queue", "source",
    "share",
];

/// Losses that one stream has not reported yet. Nothing here blocks: a count that is being
/// reported is taken out, and added again if the report failed.
#[derive(Debug)]
pub struct Losses {
    before: [AtomicU64; PLACES.len()],
    own_place: &'static str,
    own: AtomicU64,
}

impl Losses {
    /// Creates the counts for the stream of the sink at `own_place`.
    pub fn of(own_place: &'static str) -> Self {
        Self { before: Default::default(), own_place, own: AtomicU64::new(0) }
    }

    /// Counts `count` records lost at `place`.
    pub fn add(&self, place: &'static str, count: u64) {
        let known = self.all().find(|(known, _)| *known == place);
        debug_assert!(known.is_some(), "{place} is missing in PLACES");
        // A count at a wrong stage is better than no count.
        known.map_or(&self.own, |(_, pending)| pending).fetch_add(count, Relaxed);
    }

    /// Passes each pending count to `say`. A count that `say` does not accept stays.
    pub fn report(&self, mut say: impl FnMut(&'static str, u64) -> bool) {
        for (place, pending) in self.all() {
            let count = pending.swap(0, Relaxed);
            if count > 0 && !say(place, count) {
                pending.fetch_add(count, Relaxed);
            }
        }
    }

    /// Returns how many losses are pending.
    pub fn pending(&self) -> u64 {
        self.all().map(|(_, pending)| pending.load(Relaxed)).sum()
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &AtomicU64)> {
        PLACES.into_iter().zip(&self.before).chain([(self.own_place, &self.own)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_offered_again() {
        let losses = Losses::of("sink.a");
        losses.add("ring", 2);
        losses.add("sink.a", 1);
        losses.add("ring", 3);
        losses.report(|_, _| false);
        assert_eq!(losses.pending(), 6);
        let mut said = Vec::new();
        losses.report(|place, count| {
            // What is added meanwhile is reported the next time.
            losses.add("ring", 7);
            said.push((place, count));
            true
        });
        assert_eq!(said, [("ring", 5), ("sink.a", 1)]);
        assert_eq!(losses.pending(), 14);
    }
}
