//! Events that are counted as they are read, and not kept: of a flood there may be gigabytes.

use std::sync::{Mutex, MutexGuard};

use serde::Deserialize;

use crate::{agent::LONGEST, netns::Place};

/// How many failed binds were reported of each network namespace of which no more is kept.
#[derive(Default)]
pub struct OnlyCounted(Mutex<Vec<(Place, u64)>>);

/// What is read of an event.
#[derive(Deserialize)]
struct Counted {
    netns: Place,
    count: u64,
}

impl OnlyCounted {
    /// From now on events in `place` are only counted.
    pub fn begin(&self, place: Place) {
        self.all().push((place, 0));
    }

    /// Counts a line that is an event in one of the namespaces, and tells whether it is one.
    /// A line that is too long is left to whoever looks for faults.
    #[must_use]
    pub fn take(&self, line: &str) -> bool {
        let mut all = self.all();
        if all.is_empty() || line.len() > LONGEST {
            return false;
        }
        let Ok(event) = serde_json::from_str::<Counted>(line) else { return false };
        let found = all.iter_mut().find(|(place, _)| place.is(event.netns));
        found.map(|(_, count)| *count += event.count).is_some()
    }

    /// Returns whether events in `place` are only counted.
    #[must_use]
    pub fn contains(&self, place: Place) -> bool {
        self.all().iter().any(|(of, _)| of.is(place))
    }

    /// How many were reported of `place`.
    #[must_use]
    pub fn told_in(&self, place: Place) -> u64 {
        self.all().iter().find(|(of, _)| of.is(place)).map_or(0, |(_, count)| *count)
    }

    /// The counts are right even where a test has panicked.
    fn all(&self) -> MutexGuard<'_, Vec<(Place, u64)>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_namespace_are_counted_and_no_others() {
        let place = |text: &str| serde_json::from_str::<Place>(text).unwrap();
        let [own, other] = [r#"{"inode":7,"cookie":1}"#, r#"{"inode":7,"cookie":2}"#];
        let event = |netns| format!(r#"{{"count":3,"netns":{netns},"sockets":[]}}"#);
        let counted = OnlyCounted::default();
        assert!(!counted.take(&event(own)), "before it begins");
        counted.begin(place(own));
        assert!(counted.take(&event(own)) && counted.take(&event(own)));
        for kept in [event(other), "{\"count\":3}".to_owned(), "no event".to_owned()] {
            assert!(!counted.take(&kept), "{kept}");
        }
        assert_eq!((counted.told_in(place(own)), counted.told_in(place(other))), (6, 0));
    }
}
