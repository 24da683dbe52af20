//! Which lines of an agent's output are about this process's tests: it watches the whole
//! machine, and what others do there must not delay a test, let alone fill its memory.

use std::sync::{Mutex, MutexGuard};

use serde_json::Deserializer;

use crate::netns::Place;

/// What is known of the tests.
static OURS: Mutex<Ours> = Mutex::new(Ours { marks: Vec::new(), places: Vec::new() });

struct Ours {
    /// What an event about a process of theirs contains. Without any, all events may be theirs.
    marks: Vec<String>,
    /// The namespaces that they have asked for, the host's among them.
    places: Vec<Place>,
}

/// What stands before the place in an event.
const NETNS: &str = "\"netns\":";

/// Events that contain `mark` are tests': a part of a control group's path.
pub fn add_mark(mark: &str) {
    ours().marks.push(mark.to_owned());
}

/// Events in `place` are tests'.
pub fn add_place(place: Place) {
    ours().places.push(place);
}

/// Whether a line is to be kept: all are but the events that are certainly others', of a
/// process outside the tests' control groups in a namespace that no test knows.
#[must_use]
pub fn is(line: &str) -> bool {
    let Ours { marks, places } = &*ours();
    let is_marked = marks.is_empty() || marks.iter().any(|mark| line.contains(mark));
    is_marked || is_in_one_of(line, places)
}

/// Whether it names one of `places`, or none at all.
fn is_in_one_of(line: &str, places: &[Place]) -> bool {
    let mut named = line.match_indices(NETNS).filter_map(|(at, _)| {
        let rest = &line[at + NETNS.len()..];
        Deserializer::from_str(rest).into_iter::<Place>().next()?.ok()
    });
    let Some(first) = named.next() else { return true };
    std::iter::once(first).chain(named).any(|named| places.iter().any(|place| place.is(named)))
}

/// Lists that are only added to are right even where a test has panicked.
fn ours() -> MutexGuard<'static, Ours> {
    OURS.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_elsewhere_are_others() {
        let [own, other] = [r#"{"inode":7,"cookie":1}"#, r#"{"inode":7,"cookie":2}"#];
        let places = [serde_json::from_str::<Place>(own).unwrap()];
        let event = |netns| format!(r#"{{"count":3,"netns":{netns},"sockets":[]}}"#);
        assert!(is_in_one_of(&event(own), &places));
        assert!(!is_in_one_of(&event(other), &places));
        let loss = r#"{"schema":"portwatch/loss/v1","count":3}"#;
        assert!(is_in_one_of(loss, &places), "no place at all");
        let both = format!("{}{}", event(other), event(own));
        assert!(is_in_one_of(&both, &places), "one of several");
    }
}
