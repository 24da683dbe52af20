//! The outcome of a failed bind: a record of its own, since it is known later.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::evidence::{Gap, Netns, Protocol};

/// The schema of [`Outcome`].
pub const OUTCOME: &str = "portwatch/outcome/v1";

/// The outcome of an event's failed bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Outcome {
    /// `portwatch/outcome/v1`.
    pub schema: String,
    /// The `id` of the event.
    pub id: String,
    /// When the outcome was known, or when `outcome-window` ended.
    #[cfg_attr(test, schemars(with = "crate::evidence::Time"))]
    pub time: Timestamp,
    /// The outcome.
    pub outcome: Became,
    /// Milliseconds from the event's first failure to `time`.
    pub after_ms: u64,
    /// Number of failed attempts at this address, from the event's first failure on.
    pub tries: u64,
    /// The transport protocol of the failed bind.
    pub protocol: Protocol,
    /// The address that could not be bound.
    pub address: IpAddr,
    /// The port that could not be bound.
    pub port: u16,
    /// The address that was bound instead or later (`recovered`, `another_port`).
    #[serde(default)]
    pub bound: Option<SocketAddr>,
    /// The process that bound `bound`, or else the failing process.
    pub process: Actor,
    /// How the process exited (`exited`).
    #[serde(default)]
    pub exit: Option<Exit>,
    /// The failing process's unit or container, if it has one.
    #[serde(default)]
    pub unit: Option<OfUnit>,
    /// The network namespace of the failing socket.
    pub netns: Netns,
    /// Missing evidence, with its reason.
    #[serde(default)]
    pub gaps: Vec<Gap>,
}

/// The kinds of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Became {
    /// The address was bound: by the failing process, a descendant, or the next process of
    /// its unit.
    Recovered,
    /// The process bound another port of the same address.
    AnotherPort,
    /// The process exited without it.
    Exited,
    /// The process still attempts to bind it, and fails.
    StillFailing,
    /// The process is running, has not bound it and no longer attempts to.
    RunningWithout,
}

/// A process of an outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Actor {
    /// The process id in the initial pid namespace.
    pub pid: u32,
    /// The name of the thread or process.
    pub comm: Option<String>,
}

/// How a process exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Exit {
    /// Its exit status, if it ended by exit(2).
    pub status: Option<u8>,
    /// The number of the signal that ended it.
    pub signal: Option<u8>,
}

impl Exit {
    /// Reads a code as wait(2) returns it.
    pub fn of(code: u32) -> Self {
        let [low, high, ..] = code.to_le_bytes();
        // The upper bit is set if a core was dumped.
        match low & 0x7f {
            0 => Self { status: Some(high), signal: None },
            signal => Self { status: None, signal: Some(signal) },
        }
    }

    /// Returns whether the status is 0.
    pub fn is_success(self) -> bool {
        self.status == Some(0)
    }

    /// Returns whether it exited by a signal with which others end a program, or with the status
    /// that stands for such a signal: HUP, INT, QUIT, KILL, TERM.
    pub fn is_asked_for(self) -> bool {
        let signal = self.signal.or(self.status.and_then(|status| status.checked_sub(128)));
        matches!(signal, Some(1 | 2 | 3 | 9 | 15))
    }
}

/// The unit or container of a failing process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OfUnit {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: UnitKind,
    /// The user whose service manager runs it; absent for the system's, and for containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// Whether another process of it has been started since; null if that is not known.
    pub restarted: Option<bool>,
    /// systemd's `Result` of the unit: `success`, `exit-code`, `start-limit-hit` …
    #[serde(default)]
    pub result: Option<String>,
    /// Number of restarts (systemd's `NRestarts`).
    #[serde(default)]
    pub restarts: Option<u32>,
}

/// The kinds of what a process belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// A unit of systemd.
    Unit,
    /// A container.
    Container,
}

impl Outcome {
    /// Returns whether the program failed because of it, as far as that is known.
    pub fn is_harm(&self) -> bool {
        match self.outcome {
            Became::Recovered | Became::AnotherPort | Became::RunningWithout => false,
            Became::StillFailing => true,
            Became::Exited => !self.exit.is_some_and(Exit::is_success),
        }
    }
}

/// One of each kind.
#[cfg(test)]
pub(crate) fn examples() -> Vec<Outcome> {
    use strum::VariantArray as _;

    let one = |became: &Became| Outcome {
        schema: OUTCOME.to_owned(),
        id: "3f2a9c11-5e1-7b3e".to_owned(),
        time: "2026-06-08T10:02:20Z".parse().unwrap(),
        outcome: *became,
        after_ms: 3_240,
        tries: 4,
        protocol: Protocol::Tcp,
        address: [0, 0, 0, 0].into(),
        port: 8080,
        bound: None,
        process: Actor { pid: 31550, comm: Some("java".to_owned()) },
        exit: None,
        unit: None,
        netns: Netns::default(),
        gaps: Vec::new(),
    };
    let mut all: Vec<_> = Became::VARIANTS.iter().map(one).collect();
    for outcome in &mut all {
        match outcome.outcome {
            Became::Recovered => outcome.bound = Some(([0, 0, 0, 0], 8080).into()),
            Became::AnotherPort => outcome.bound = Some(([0, 0, 0, 0], 8081).into()),
            Became::Exited => {
                outcome.exit = Some(Exit { status: Some(1), signal: None });
                outcome.unit = Some(OfUnit {
                    name: "app.service".to_owned(),
                    kind: UnitKind::Unit,
                    owner: None,
                    restarted: Some(true),
                    result: None,
                    restarts: None,
                });
            }
            Became::StillFailing | Became::RunningWithout => outcome.after_ms = 10_000,
        }
    }
    let mut killed = all.iter().find(|it| it.outcome == Became::Exited).cloned().unwrap();
    killed.exit = Some(Exit { status: None, signal: Some(9) });
    killed.unit = None;
    let mut unseen = killed.clone();
    unseen.exit = None;
    all.extend([killed, unseen]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_status_or_a_signal() {
        assert_eq!(Exit::of(0x0100), Exit { status: Some(1), signal: None });
        assert_eq!(Exit::of(0x8b), Exit { status: None, signal: Some(11) });
        assert!(Exit::of(0).is_success() && !Exit::of(9).is_success());
    }

    /// The second start of a shared helper (epmd) ends like this: its service has what it needs.
    #[test]
    fn an_end_with_status_0_is_no_harm() {
        let exited = examples().into_iter().find(|it| it.outcome == Became::Exited).unwrap();
        let harms = |status: Option<u8>| {
            let exit = status.map(|status| Exit { status: Some(status), signal: None });
            Outcome { exit, ..exited.clone() }.is_harm()
        };
        assert!(!harms(Some(0)));
        assert!(harms(Some(1)) && harms(None));
    }
}
