//! Determines what state a process is in, and how it reacts to a signal.

use crate::{
    evidence::{ProcessState, Sigterm},
    proc::Signals,
};

/// The bit of SIGTERM, which is signal 15.
const SIGTERM: u64 = 1 << 14;

/// Returns the state for a letter in `/proc/PID/stat`, or `None` for the states of kernel
/// threads (`I`, `P`).
pub fn of(letter: u8) -> Option<ProcessState> {
    Some(match letter {
        b'R' => ProcessState::Running,
        b'S' => ProcessState::Sleeping,
        b'D' => ProcessState::DiskSleep,
        b'T' => ProcessState::Stopped,
        b't' => ProcessState::Traced,
        b'Z' => ProcessState::Zombie,
        b'X' => ProcessState::Dead,
        _ => return None,
    })
}

/// Returns what a process does with SIGTERM. An ignored signal is ignored whether it is blocked
/// or not. A blocked signal waits, even if there is a handler.
pub fn sigterm(signals: Signals) -> Sigterm {
    let has = |set: u64| set & SIGTERM != 0;
    match signals {
        Signals { ignored, .. } if has(ignored) => Sigterm::Ignored,
        Signals { blocked, .. } if has(blocked) => Sigterm::Blocked,
        Signals { caught, .. } if has(caught) => Sigterm::Caught,
        _ => Sigterm::Default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc;

    /// Lines of `/proc/PID/status`.
    fn read(blocked: &str, ignored: &str, caught: &str) -> Sigterm {
        let text = format!("SigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
        sigterm(proc::status(text.as_bytes()).signals.unwrap())
    }

    #[test]
    fn sigterm_is_the_fifteenth_bit() {
        let none = "0000000000000000";
        for (what, blocked, ignored, caught, expected) in [
            ("sleep", none, none, none, Sigterm::Default),
            ("nginx", none, "0000000040001000", "0000000018016a07", Sigterm::Caught),
            (
                "bash, at a prompt",
                "0000000000010000",
                "0000000000384004",
                "000000004b813efb",
                Sigterm::Ignored,
            ),
            (
                "systemd",
                "7be3c0fe28014a03",
                "0000000000001000",
                "00000001000004ec",
                Sigterm::Blocked,
            ),
            (
                "python, signal.signal(SIGTERM, SIG_IGN)",
                none,
                "0000000001005000",
                "0000000000000002",
                Sigterm::Ignored,
            ),
            ("java", none, none, "2000000181005ccf", Sigterm::Caught),
            ("ignored and blocked", "0000000000004000", "0000000000004000", none, Sigterm::Ignored),
            ("caught and blocked", "0000000000004000", none, "0000000000004000", Sigterm::Blocked),
            ("its neighbours", "0000000000002000", "0000000000008000", none, Sigterm::Default),
        ] {
            assert_eq!(read(blocked, ignored, caught), expected, "{what}");
        }
    }

    #[test]
    fn letters_are_states_and_the_kernels_own_are_not() {
        let states: Vec<_> = b"RSDTtZX".iter().map(|&letter| of(letter)).collect();
        assert!(states.iter().all(Option::is_some), "{states:?}");
        let words = serde_json::to_string(&states).unwrap();
        assert_eq!(
            words,
            r#"["running","sleeping","disk_sleep","stopped","traced","zombie","dead"]"#
        );
        assert!(b"IPWKx\0".iter().all(|&letter| of(letter).is_none()));
    }
}
