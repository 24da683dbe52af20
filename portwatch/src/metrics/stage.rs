//! A queue and its thread: how many items wait, and whether they make progress.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// The name of the enrichment stage: without it there are no events.
pub const ENRICH: &str = "enrich";

/// How long items may wait without progress. One failed bind takes 5 s at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// A stage that makes no progress.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {waiting} waiting, no progress for {} s", .still.as_secs())]
pub struct Stuck {
    /// The stage's name.
    pub stage: &'static str,
    /// How many items wait.
    pub waiting: usize,
    /// Time without progress.
    pub still: Duration,
}

/// One stage.
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    began: Instant,
    waiting: AtomicUsize,
    /// When it last made progress or became busy, in milliseconds from its creation.
    moved_ms: AtomicU64,
    ended: AtomicBool,
    owed: AtomicU64,
}

impl Stage {
    /// Creates an idle stage.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            began: Instant::now(),
            waiting: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            owed: AtomicU64::new(0),
        }
    }

    /// Counts an item that is about to be queued.
    pub fn add(&self) {
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.moved();
        }
    }

    /// Removes an item from the count again, because it could not be queued.
    pub fn take_back(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// Counts an item as done.
    pub fn done(&self) {
        self.waiting.fetch_sub(1, Relaxed);
        self.moved();
    }

    /// Ends the stage: no more progress is expected.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
        self.waiting.store(0, Relaxed);
        self.owed.store(0, Relaxed);
    }

    /// Adds failed binds that this stage must report, in events or as losses.
    pub fn owe(&self, refusals: u64) {
        self.owed.fetch_add(refusals, Relaxed);
    }

    /// Counts failed binds as reported.
    pub fn told(&self, refusals: u64) {
        self.owed.fetch_sub(refusals, Relaxed);
    }

    /// Returns how many failed binds are not reported yet. Before the sinks, each waiting item
    /// is one; a sink's items say how many they are, and outcomes are none.
    pub fn owed(&self) -> u64 {
        let waiting = || u64::try_from(self.waiting()).unwrap_or(u64::MAX);
        match self.name {
            _ if self.ended.load(Relaxed) => 0,
            ENRICH => waiting(),
            _ => self.owed.load(Relaxed),
        }
    }

    /// Returns how many items wait.
    pub fn waiting(&self) -> usize {
        if self.ended.load(Relaxed) { 0 } else { self.waiting.load(Relaxed) }
    }

    /// Checks whether the waiting items make progress.
    ///
    /// # Errors
    /// They make no progress.
    pub fn health(&self, now: Instant) -> Result<(), Stuck> {
        let waiting = self.waiting();
        let moved = self.began + Duration::from_millis(self.moved_ms.load(Relaxed));
        let still = now.saturating_duration_since(moved);
        match waiting > 0 && still > PATIENCE {
            true => Err(Stuck { stage: self.name, waiting, still }),
            false => Ok(()),
        }
    }

    fn moved(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(3600);

    #[test]
    fn one_with_nothing_to_do_is_well_for_ever() {
        let stage = Stage::new("a");
        assert_eq!(stage.health(Instant::now() + LATER), Ok(()));
        stage.add();
        stage.done();
        assert_eq!(stage.health(Instant::now() + LATER), Ok(()));
    }

    #[test]
    fn one_that_does_nothing_is_not() {
        let stage = Stage::new("a");
        stage.add();
        assert_eq!(stage.health(Instant::now()), Ok(()));
        // Offering more to a full queue is no progress.
        stage.add();
        stage.take_back();
        let why = stage.health(Instant::now() + LATER).unwrap_err().to_string();
        assert!(why.starts_with("a: 1 waiting, no progress for 3"), "{why}");
        stage.end();
        assert_eq!(stage.health(Instant::now() + LATER), Ok(()));
        assert_eq!(stage.waiting(), 0);
    }
}
