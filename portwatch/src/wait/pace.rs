//! When to look without being told. Pure.

use std::time::Duration;

/// Whatever happens.
const SLOW: Duration = Duration::from_secs(1);
/// After an event, which may come a moment before what it announces.
const SOON: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
];
/// Where nothing tells of changes: from the first to the second, by eighths.
const POLL_FIRST: Duration = Duration::from_millis(2);
const POLL_LAST: Duration = Duration::from_millis(20);
/// Where a timer of the kernel's should have run out: it is up to 2 s late.
const OVERDUE: Duration = Duration::from_millis(20);

/// The time between looks.
#[derive(Debug)]
pub struct Pace {
    /// How many of [`SOON`] have been waited for; all of them, if nothing has
    /// happened.
    after_event: usize,
    poll: Duration,
    /// What the last look took.
    cost: Duration,
    /// What is left until a look at everything.
    slow: Duration,
    /// The time that was last decided on.
    decided: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            after_event: SOON.len(),
            poll: POLL_FIRST,
            cost: Duration::ZERO,
            slow: SLOW,
            decided: Duration::ZERO,
        }
    }
}

impl Pace {
    /// How long to wait for an event. `told` is whether any can come, `ends_in`
    /// when what is in the way ends by itself.
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
        // At most half of the time is spent on looking.
        self.decided = next.max(self.cost);
        self.decided
    }

    /// The wait is over, by an event or not. Gives whether to look at everything.
    pub fn wakes(&mut self, by_event: bool) -> bool {
        self.after_event = if by_event { 0 } else { (self.after_event + 1).min(SOON.len()) };
        if by_event {
            return false;
        }
        self.slow = self.slow.saturating_sub(self.decided);
        let thorough = self.slow.is_zero();
        if thorough {
            self.slow = SLOW;
        }
        thorough
    }

    /// What that look took.
    pub fn looked(&mut self, cost: Duration) {
        self.cost = cost;
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
        assert!(!pace.wakes(true));
        let waits = [1, 2, 4, 8, 16].map(|_| {
            let next = pace.next(true, None);
            assert!(!pace.wakes(false));
            next
        });
        assert_eq!(waits, SOON);
        // What is left of the second.
        assert_eq!(pace.next(true, None), SLOW - ms(31));
        assert!(pace.wakes(false));
        assert_eq!(pace.next(true, None), SLOW);
    }

    #[test]
    fn without_events_it_is_looked_often_and_everything_once_a_second() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(false, None), POLL_FIRST);
        let mut waited = POLL_FIRST;
        while !pace.wakes(false) {
            let next = pace.next(false, None);
            assert!((POLL_FIRST..=POLL_LAST).contains(&next), "{next:?}");
            waited += next;
        }
        assert!(waited <= SLOW, "{waited:?}");
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
        let mut pace = Pace::default();
        pace.wakes(true);
        pace.looked(ms(30));
        assert_eq!(pace.next(true, None), ms(30));
    }
}
