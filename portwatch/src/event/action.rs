//! What `portwatch free` did about a port, and what came of it.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Host;
use crate::{
    diagnose::Diagnosis,
    evidence::{Connections, Device, Netns, Protocol, TimeWait},
};

/// The schema of [`Action`].
pub const ACTION: &str = "portwatch/action/v1";

/// What `portwatch free` did about one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Action {
    /// `portwatch/action/v1`.
    pub schema: String,
    /// When it began.
    #[cfg_attr(test, schemars(with = "crate::evidence::Time"))]
    pub time: Timestamp,
    /// The host.
    pub host: Host,
    /// The user who ran it: the real user id.
    pub uid: u32,
    /// Its name.
    #[serde(default)]
    pub user: Option<String>,
    /// The user who logged in to the session in which it ran; differs from `user` after sudo.
    #[serde(default)]
    pub session_user: Option<String>,
    /// The network namespace of the port.
    #[serde(default)]
    pub netns: Netns,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address; `null` for all addresses.
    pub address: Option<IpAddr>,
    /// The interface; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The port.
    pub port: u16,
    /// Whether the next program sets `SO_REUSEADDR`.
    pub reuseaddr: bool,
    /// What came of it.
    pub result: Result,
    /// The same in words.
    pub why: String,
    /// What was done, in order.
    pub steps: Vec<Done>,
    /// Milliseconds from the beginning to the end.
    pub took_ms: u64,
    /// What blocked a bind before; `null` if nothing did.
    pub before: Option<Diagnosis>,
    /// Number of connections on the port before.
    pub connections: Connections,
    /// What blocks a bind now; `null` if nothing does, or if that was not looked at.
    pub after: Option<Diagnosis>,
    /// TIME-WAIT entries on the port, the most that were seen after the first step.
    pub time_wait: TimeWait,
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Result {
    /// A bind would have succeeded from the beginning.
    AlreadyFree,
    /// A bind would succeed now, after the steps.
    Freed,
    /// A bind would succeed now: what blocked it ended by itself.
    Waited,
    /// Nothing was done, as asked (`--dry-run`).
    Planned,
    /// Nothing was done: it is not safe, or needs a person.
    Refused,
    /// Nothing was done: the person said no.
    Declined,
    /// A step was not done.
    Failed,
    /// Another process has taken the port.
    Taken,
    /// The steps were done, and something still blocks a bind.
    TimedOut,
    /// It was interrupted (Ctrl-C).
    Interrupted,
}

impl Action {
    /// Returns the user to whom it is attributed: the one who logged in, or the one who ran it.
    pub fn by(&self) -> String {
        let name = self.session_user.as_ref().or(self.user.as_ref());
        name.cloned().unwrap_or_else(|| format!("uid {}", self.uid))
    }
}

impl Result {
    /// Returns whether a bind would succeed now.
    pub fn is_free(self) -> bool {
        matches!(self, Self::AlreadyFree | Self::Freed | Self::Waited)
    }
}

/// One step that was done, or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Done {
    /// The command that does the same, for a shell.
    pub command: String,
    /// Who did it: `signal`, `systemd`, `engine` or `command`; `null` if it was not done.
    pub by: Option<By>,
    /// What was done, or why not.
    pub what: String,
    /// The processes that got a signal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signalled: Vec<Signalled>,
    /// Milliseconds until the manager's answer.
    pub took_ms: u64,
}

/// Who did a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A signal.
    Signal,
    /// systemd, over D-Bus.
    Systemd,
    /// The container engine, over its API.
    Engine,
    /// The manager's own command.
    Command,
}

/// A process that got a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Signalled {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The last signal: `SIGTERM` or `SIGKILL`.
    pub signal: String,
    /// Whether it has exited.
    pub exited: bool,
}

/// A process that was ended by a signal.
#[cfg(test)]
pub(crate) fn example(before: Diagnosis) -> Action {
    let signalled = Signalled {
        pid: 2041,
        comm: "java".to_owned(),
        signal: "SIGTERM".to_owned(),
        exited: true,
    };
    Action {
        schema: ACTION.to_owned(),
        time: "2026-06-08T10:02:20Z".parse().unwrap_or_default(),
        host: Host::default(),
        uid: 0,
        user: Some("root".to_owned()),
        session_user: Some("anna".to_owned()),
        netns: Netns::default(),
        protocol: Protocol::Tcp,
        address: None,
        device: None,
        port: 8080,
        reuseaddr: false,
        result: Result::Freed,
        why: String::new(),
        steps: vec![Done {
            command: "kill 2041".to_owned(),
            by: Some(By::Signal),
            what: "sent SIGTERM to java[2041]".to_owned(),
            signalled: vec![signalled],
            took_ms: 3,
        }],
        took_ms: 1_240,
        before: Some(before),
        connections: Connections::default(),
        after: None,
        time_wait: TimeWait::default(),
    }
}
