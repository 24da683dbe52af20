//! An event, and assertions about its content.

use std::fmt::Write as _;

use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    forms,
    netns::{Netns, Place},
};

/// The schema of an event.
pub const EVENT: &str = "portwatch/bind-failure/v1";
/// The schema of a loss record.
pub const LOSS: &str = "portwatch/loss/v1";
/// The schema of an agent's start or end.
pub const AGENT: &str = "portwatch/agent/v1";
/// The schema of an action of `portwatch free`.
pub const ACTION: &str = "portwatch/action/v1";
/// The schema of an outcome.
pub const OUTCOME: &str = "portwatch/outcome/v1";

/// One event line.
pub struct Event {
    /// The whole line.
    pub value: Value,
    /// When it was read, as [`crate::monotonic_ns`].
    pub at_ns: u64,
    /// The pid of the failing process.
    pub pid: Option<u32>,
    /// How many failed binds it counts.
    pub count: u64,
    netns: Place,
}

impl Event {
    /// Creates the event of `value`. What events are searched by is copied once, because
    /// thousands of them are searched again and again.
    #[must_use]
    pub fn new(value: Value, at_ns: u64) -> Self {
        let number = |pointer| value.pointer(pointer).and_then(Value::as_u64);
        let pid = number("/process/pid").and_then(|pid| u32::try_from(pid).ok());
        let count = number("/count").unwrap_or(0);
        let netns = value.get("netns").and_then(|netns| Place::deserialize(netns).ok());
        Self { at_ns, pid, count, netns: netns.unwrap_or_default(), value }
    }

    /// The value at `pointer` (RFC 6901); null where there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The text at `pointer`; empty where there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// The number at `pointer`, if there is one.
    #[must_use]
    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.at(pointer).as_u64()
    }

    /// The elements at `pointer`; none where there is no array.
    #[must_use]
    pub fn list(&self, pointer: &str) -> &[Value] {
        self.at(pointer).as_array().map_or(&[], Vec::as_slice)
    }

    /// Returns whether it happened in `netns`.
    #[must_use]
    pub fn is_in(&self, netns: &Netns) -> bool {
        netns.place().is(self.netns)
    }

    /// Returns the command and the reason of suggested action `number`, as one text.
    #[must_use]
    pub fn advice(&self, number: usize) -> String {
        let text = |key| self.text(&format!("/diagnosis/moves/{number}/{key}"));
        format!("{} {}", text("command"), text("why"))
    }

    /// Asserts that all of `expected` is in the event: objects by the keys that
    /// are given, arrays and all else in full.
    #[track_caller]
    pub fn includes(&self, expected: &Value) -> &Self {
        let mut faults = String::new();
        compare("", expected, &self.value, &mut faults);
        assert!(faults.is_empty(), "the event differs:\n{faults}{self}");
        self
    }

    /// Asserts that the value at `pointer` is one of `allowed`.
    #[track_caller]
    pub fn has_one_of(&self, pointer: &str, allowed: &[&str]) -> &Self {
        let found = self.text(pointer);
        assert!(allowed.contains(&found), "{pointer} is {found}, not of {allowed:?}\n{self}");
        self
    }

    /// Asserts that the failed bind is explained by at least one socket and its rule.
    #[track_caller]
    pub fn is_explained(&self) -> &Self {
        let reasons = self.list("/diagnosis/refused_by");
        assert!(!reasons.is_empty(), "no socket is named as the reason\n{self}");
        for reason in reasons {
            let rule = reason.get("rule").and_then(Value::as_str).unwrap_or_default();
            assert!(!rule.is_empty(), "no rule is named\n{self}");
            assert!(reason.get("socket").is_some(), "no socket is named\n{self}");
        }
        self
    }

    /// Checks what holds for every event, and returns what does not.
    #[must_use]
    pub fn faults(&self) -> String {
        let mut faults = String::new();
        let texts =
            ["/id", "/time", "/host/hostname", "/host/boot_id", "/diagnosis/summary"].into_iter();
        for pointer in texts.filter(|pointer| self.text(pointer).is_empty()) {
            _ = writeln!(faults, "{pointer} is empty");
        }
        for pointer in
            ["/diagnosis/cause", "/diagnosis/confidence", "/diagnosis/holder/class", "/host/hooks"]
        {
            // Words that are matched by machines, so they have one spelling.
            let word = self.text(pointer);
            let is_word = |c: char| c.is_ascii_lowercase() || "._".contains(c);
            let optional = pointer.ends_with("class") && self.at("/diagnosis/holder").is_null();
            if !optional && (word.is_empty() || !word.chars().all(is_word)) {
                _ = writeln!(faults, "{pointer} is no stable word: {}", self.at(pointer));
            }
        }
        if self.count == 0 {
            _ = writeln!(faults, "/count is {}", self.at("/count"));
        }
        for pointer in ["/sockets", "/gaps", "/diagnosis/notes", "/diagnosis/moves"] {
            if !self.at(pointer).is_array() {
                _ = writeln!(faults, "{pointer} is no list");
            }
        }
        for gap in self.list("/gaps") {
            let said = |key| gap.get(key).and_then(Value::as_str).is_some_and(|s| !s.is_empty());
            if !said("what") || !said("why") {
                _ = writeln!(faults, "a gap does not say what and why: {gap}");
            }
        }
        let commands = self.list("/diagnosis/moves").iter();
        for command in commands.filter_map(|step| step["command"].as_str()) {
            if !forms::is_known(command) {
                _ = writeln!(faults, "a command without a row in docs/diagnosis.md: {command}");
            }
        }
        for number in 0..self.list("/diagnosis/moves").len() {
            let advice = self.advice(number);
            let kills =
                ["kill -9", "kill -KILL", "kill -s KILL"].iter().any(|kill| advice.contains(kill));
            if kills && !self.has_deaf_holder() {
                _ = writeln!(faults, "a move kills without asking: {advice}");
            }
        }
        faults
    }
}

impl Event {
    /// Whether SIGTERM does nothing to a process that has the port.
    fn has_deaf_holder(&self) -> bool {
        let holders = |socket: &Value| socket["holders"].as_array().cloned().unwrap_or_default();
        let mut all = self.list("/sockets").iter().flat_map(holders);
        all.any(|holder| holder["sigterm"] == "ignored" || holder["sigterm"] == "blocked")
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.value)
    }
}

fn compare(pointer: &str, expected: &Value, found: &Value, faults: &mut String) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, expected) in expected {
                let found = found.get(key).unwrap_or(&Value::Null);
                compare(&format!("{pointer}/{key}"), expected, found, faults);
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (number, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(&format!("{pointer}/{number}"), expected, found, faults);
            }
        }
        _ if expected == found => {}
        _ => _ = writeln!(faults, "  {pointer}: expected {expected}, found {found}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(value: Value) -> Event {
        Event::new(value, 0)
    }

    #[test]
    fn a_part_is_included() {
        let event = event(json!({"a": {"b": 1, "c": [1, {"d": 2, "e": 3}]}, "f": null}));
        event.includes(&json!({"a": {"b": 1, "c": [1, {"e": 3}]}, "f": null, "g": null}));
    }

    #[test]
    #[should_panic(expected = "/a/b: expected 2, found 1")]
    fn a_difference_is_named() {
        event(json!({"a": {"b": 1}})).includes(&json!({"a": {"b": 2}}));
    }

    #[test]
    fn faults_of_an_empty_event_are_found() {
        let faults = event(json!({"diagnosis": {"moves": [{"command": "kill -9 1"}]}})).faults();
        for part in ["/id", "/count", "/host/hooks", "/diagnosis/cause", "/gaps", "kill -9"] {
            assert!(faults.contains(part), "{part} is missed in:\n{faults}");
        }
    }
}
