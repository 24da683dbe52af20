//! When the test of this thread began. One agent serves all tests of a process, and pids are used
//! again: 32,768 processes later, an event of an earlier test has the pid of a process of this one.

use std::cell::Cell;

use crate::monotonic_ns;

thread_local! {
    static BEGAN: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Says that it has begun, for the first time in this thread. Whatever a test starts calls it.
pub fn now() {
    BEGAN.set(BEGAN.get().or_else(|| Some(monotonic_ns())));
}

/// When it began, as [`monotonic_ns`]; the beginning of time in a thread that has started nothing.
#[must_use]
pub fn at() -> u64 {
    BEGAN.get().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_begins_once_and_in_its_own_thread() {
        assert_eq!(at(), 0);
        now();
        let first = at();
        now();
        assert!(first > 0 && at() == first);
        std::thread::spawn(|| assert_eq!(at(), 0)).join().unwrap();
    }
}
