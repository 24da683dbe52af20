//! The outcome of a guest's run, read from its output.

use std::collections::BTreeSet;

/// The outcome of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The suites' exit status; `None` if the guest did not report it, or not completely.
    status: Option<i32>,
    /// Lines of the guest's kernel that should not be there.
    pub warnings: usize,
    /// Whether the kernel was locked down as the scenario requires.
    locked_as_wanted: bool,
    /// Tests that passed, without those that were skipped as expected.
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
    /// From the agent's start until it was ready, in milliseconds.
    pub ready_ms: Option<u32>,
    /// Instructions that the verifier processed, the most for one program.
    pub verified: Option<u32>,
}

impl Outcome {
    /// Returns whether something was tested and passed, and the kernel printed no warnings.
    pub fn passed(&self) -> bool {
        self.status == Some(0) && self.warnings == 0 && self.locked_as_wanted && self.passed > 0
    }

    /// Returns whether the guest reached its end.
    pub fn ended(&self) -> bool {
        self.status.is_some()
    }

    /// Returns the outcome in a few words.
    pub fn word(&self) -> String {
        let Some(status) = self.status else { return "did not end".to_owned() };
        let counts =
            format!("{} passed, {} skipped, {} failed", self.passed, self.skipped, self.failed);
        let mut word = match status {
            0 if self.passed > 0 => format!("passed: {counts}"),
            0 => "ran no test".to_owned(),
            status => format!("failed with status {status}: {counts}"),
        };
        if !self.locked_as_wanted {
            word.push_str("; not locked down as wanted");
        }
        if self.warnings > 0 {
            word.push_str(&format!("; its kernel gave {} warnings", self.warnings));
        }
        word
    }

    /// Reads the guest's output. `lockdown` is the required mode.
    pub fn read(output: &str, lockdown: &str) -> Self {
        let mut read = Self::default();
        let mut skipped = BTreeSet::new();
        let mut complete = false;
        for line in output.lines().map(str::trim) {
            let after = |head: &str| line.strip_prefix(head);
            if let Some(status) = after("exit status: ") {
                read.status = status.parse().ok();
            } else if after("kernel: ").is_some() {
                read.warnings += 1;
            } else if let Some(modes) = after("lockdown: ") {
                let mode = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
                read.locked_as_wanted = mode.map_or("none", |(mode, _)| mode) == lockdown;
            } else if let Some(counts) = after("test result: ") {
                read.passed += count(counts, "passed");
                read.failed += count(counts, "failed");
            } else if let Some((_, rest)) = line.split_once("skipped: ") {
                skipped.extend(rest.split(':').next());
            } else if let Some((_, measured)) = line.split_once("measured: ") {
                read.ready_ms = number(measured, "ready_ms=").or(read.ready_ms);
                read.verified = read.verified.max(number(measured, "verified="));
            } else if line == "end of run" {
                complete = true;
            }
        }
        read.skipped = u32::try_from(skipped.len()).unwrap_or(u32::MAX);
        read.passed = read.passed.saturating_sub(read.skipped);
        // All warnings are there only with the last line.
        read.status = read.status.filter(|_| complete);
        read
    }
}

/// The number before a word, as in "ok. 12 passed; 0 failed".
fn count(counts: &str, word: &str) -> u32 {
    let mut words = counts.split([' ', ';']).filter(|part| !part.is_empty());
    let mut before = "";
    words
        .find_map(|part| {
            let number = (part == word).then(|| before.parse().ok());
            before = part;
            number
        })
        .flatten()
        .unwrap_or(0)
}

/// Returns the number after a key.
fn number(text: &str, key: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "lockdown: [none] integrity confidentiality\r\n\
                        test a ... ok\nskipped: b: no c (d)\ntest b ... ok\n\
                        measured: ready_ms=812 verified=4321 program=pw_x\n\
                        test result: ok. 12 passed; 0 failed; 0 ignored; finished in 3.00s\n\
                        exit status: 0\r\nend of run\n";

    #[test]
    fn what_a_guest_said_is_counted() {
        let outcome = Outcome::read(GOOD, "none");
        assert!(outcome.passed() && outcome.ended());
        assert_eq!((outcome.passed, outcome.skipped, outcome.failed), (11, 1, 0));
        assert_eq!((outcome.ready_ms, outcome.verified), (Some(812), Some(4321)));
    }

    #[test]
    fn a_run_passes_only_if_it_said_so_to_the_end() {
        let read = |text: &str| Outcome::read(text, "none");
        assert!(!read(&GOOD.replace("end of run", "")).passed(), "cut short");
        assert!(!read(&GOOD.replace("status: 0", "status: 101")).passed());
        assert!(!read(&GOOD.replace("12 passed", "1 passed")).passed(), "all was skipped");
        assert!(!read(&GOOD.replace("exit", "kernel: WARNING: at x\nexit")).passed());
        assert!(!read("").passed());
    }

    #[test]
    fn another_lockdown_than_wanted_is_a_failure() {
        assert!(!Outcome::read(GOOD, "integrity").passed());
        let locked = GOOD.replace("[none] integrity", "none [integrity]");
        assert!(Outcome::read(&locked, "integrity").passed());
        // Without the file the kernel cannot be locked down.
        let none = GOOD.replace("[none] integrity confidentiality", "not built in");
        assert!(Outcome::read(&none, "none").passed());
    }
}
