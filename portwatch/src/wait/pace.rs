//! When to check without an event. Pure.

use std::time::{Duration, Instant};

/// The interval that always applies.
const SLOW: Duration = Duration::from_secs(1);
/// The delays after an event, which may arrive a moment before the change.
const SOON: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
];
/// The first and the last interval if there are no events. The interval grows by an eighth each
/// time.
const POLL_FIRST: Duration = Duration::from_millis(2);
const POLL_LAST: Duration = Duration::from_millis(20);
/// After a kernel timer should have expired: it is up to 2 s late.
const OVERDUE: Duration = Duration::from_millis(20);

/// The time between checks.
#[derive(Debug)]
pub struct Pace {
    /// How many of [`SOON`] have passed; all of them if there was no event.
    after_event: usize,
    poll: Duration,
    /// Time left until all sockets are checked.
    slow: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { after_event: SOON.len(), poll: POLL_FIRST, slow: SLOW }
    }
}

impl Pace {
    /// Returns how long to wait for an event. `told` says whether events can arrive, `ends_in`
    /// is the time until the kernel has removed everything that blocks.
    pub fn next(&mut self, told: bool, ends_in: Option<Duration>) -> Duration {
        let mut next = self.slow;
        if let Some(soon) = SOON.get(self.after_event) {
            next = next.min(*soon);
        }
        if !told {
            next = next.min(self.poll);
            self.poll = (self.poll + self.poll / 8).min(POLL_LAST);
        }
        if let Some(ends_in) = ends_in {
            next = next.min(ends_in.max(OVERDUE));
        }
        next
    }

    /// Records that the wait ended after this time, by an event or not. Returns whether to
    /// check all sockets.
    pub fn wakes(&mut self, by_event: bool, waited: Duration) -> bool {
        self.after_event = if by_event { 0 } else { (self.after_event + 1).min(SOON.len()) };
        self.slow = self.slow.saturating_sub(waited);
        let thorough = self.slow.is_zero();
        if thorough {
            self.slow = SLOW;
        }
        thorough
    }

    /// Returns when the next check may begin, so that at most half of the time is spent on
    /// checks.
    pub fn rested(began: Instant, ended: Instant) -> Instant {
        ended + ended.saturating_duration_since(began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn events_are_enough_until_one_comes() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(true, None), SLOW);
        assert!(!pace.wakes(true, ms(300)));
        let waits = [1, 2, 4, 8, 16].map(|_| {
            let next = pace.next(true, None);
            assert!(!pace.wakes(false, next));
            next
        });
        assert_eq!(waits, SOON);
        // What is left of the second.
        assert_eq!(pace.next(true, None), ms(669));
        assert!(pace.wakes(false, ms(669)));
        assert_eq!(pace.next(true, None), SLOW);
    }

    #[test]
    fn everything_is_looked_at_once_a_second_among_ever_so_many_events() {
        let mut pace = Pace::default();
        let thorough = (0..3_000).filter(|_| {
            pace.next(true, None);
            pace.wakes(true, ms(1))
        });
        assert_eq!(thorough.count(), 3);
    }

    #[test]
    fn without_events_it_is_looked_often() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(false, None), POLL_FIRST);
        let mut waited = POLL_FIRST;
        while !pace.wakes(false, waited) {
            waited = pace.next(false, None);
            assert!(waited <= POLL_LAST, "{waited:?}");
        }
        assert_eq!(pace.next(false, None), POLL_LAST);
    }

    #[test]
    fn the_end_of_time_wait_is_waited_for() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(true, Some(ms(42_000))), SLOW);
        assert_eq!(pace.next(true, Some(ms(300))), ms(300));
        assert_eq!(pace.next(true, Some(ms(0))), OVERDUE);
    }

    #[test]
    fn a_look_that_takes_long_is_rare() {
        let began = Instant::now();
        assert_eq!(Pace::rested(began, began + ms(30)), began + ms(60));
        assert_eq!(Pace::rested(began, began), began);
    }
}
