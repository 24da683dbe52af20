//! The versioned records of the stream.
//!
//! Fields may be added to a record within its version, as optional fields with a default. Any
//! other change creates a new version, with a fix-up that reads lines of the old version
//! ([`versions`]).

use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    decode::RawFailure,
    diagnose::Diagnosis,
    evidence::{
        Connections, Ephemeral, Evidence, Failure, Gap, LastHolder, Netns, Process, Socket,
        Subject, TimeWait,
    },
};

pub mod action;
pub mod memory;
pub mod outcome;
pub mod read;
pub mod schema;
pub mod versions;

pub use action::{ACTION, Action};
pub use outcome::{OUTCOME, Outcome};

/// The schema of [`Event`].
pub const BIND_FAILURE: &str = "portwatch/bind-failure/v1";
/// The schema of [`Loss`].
pub const LOSS: &str = "portwatch/loss/v1";
/// The schema of [`AgentNotice`].
pub const AGENT: &str = "portwatch/agent/v1";

/// A failed bind with all evidence: one record of the stream, enough for a later
/// diagnosis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// `portwatch/bind-failure/v1`.
    pub schema: String,
    /// Unique on this host: boot, time and thread.
    pub id: String,
    /// When the kernel returned EADDRINUSE.
    #[cfg_attr(test, schemars(with = "crate::evidence::Time"))]
    pub time: Timestamp,
    /// Number of identical failures that this event summarizes.
    pub count: u64,
    /// Time of the first failure, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub first_seen: Option<Timestamp>,
    /// Time of the last failure, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub last_seen: Option<Timestamp>,
    /// The host on which the agent runs.
    pub host: Host,
    /// The failed system call and its socket.
    pub failure: Failure,
    /// The failing process.
    pub process: Process,
    /// The network namespace of the failing socket.
    pub netns: Netns,
    /// Every socket on the port in that namespace.
    pub sockets: Vec<Socket>,
    /// All TIME-WAIT entries on the port.
    pub time_wait: TimeWait,
    /// Number of connections on the port.
    #[serde(default)]
    pub connections: Connections,
    /// The ephemeral port range of the namespace.
    #[serde(default)]
    pub ephemeral: Option<Ephemeral>,
    /// The previous holder, from the owner record.
    #[serde(default)]
    pub last_holder: Option<LastHolder>,
    /// The holder before the current one.
    #[serde(default)]
    pub previous_holder: Option<LastHolder>,
    /// Missing evidence, and why it is missing.
    pub gaps: Vec<Gap>,
    /// The diagnosis.
    pub diagnosis: Diagnosis,
}

/// The host and the hooks that watch it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Host {
    /// `uname -n`.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// The hook set: `fexit`, `kprobe` or `tracepoint`.
    pub hooks: String,
}

/// Failed binds that were lost, with the place that lost them. Within one stream, events
/// and losses together account for every failed bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Loss {
    /// `portwatch/loss/v1`.
    pub schema: String,
    /// When the loss was reported.
    #[cfg_attr(test, schemars(with = "crate::evidence::Time"))]
    pub time: Timestamp,
    /// The place of the loss: `ring`, `queue`, `decode`, `sink.json`, …
    #[serde(rename = "where")]
    pub place: String,
    /// Number of lost failed binds.
    pub count: u64,
}

/// The agent started or stopped. Between the two, silence means that no bind failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AgentNotice {
    /// `portwatch/agent/v1`.
    pub schema: String,
    /// When the agent started or stopped.
    #[cfg_attr(test, schemars(with = "crate::evidence::Time"))]
    pub time: Timestamp,
    /// Whether it started or stopped.
    pub state: AgentState,
    /// The agent's version.
    pub version: String,
    /// The agent's pid.
    pub pid: u32,
    /// The host on which the agent runs.
    pub host: Host,
}

/// State of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum AgentState {
    /// The hooks are attached, and the agent watches binds.
    Started,
    /// The agent is stopping, and this stream is complete.
    Stopped,
}

/// A record of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Record {
    /// A failed bind.
    BindFailure(Box<Event>),
    /// A loss.
    Loss(Loss),
    /// The agent started or stopped.
    Agent(AgentNotice),
    /// The outcome of a failed bind.
    Outcome(Box<Outcome>),
    /// What `portwatch free` did about a port.
    Action(Box<Action>),
}

impl Record {
    /// Returns how many lost failed binds this record reports.
    pub fn refusals(&self) -> u64 {
        match self {
            Self::BindFailure(event) => event.count,
            Self::Loss(loss) => loss.count,
            Self::Agent(_) | Self::Outcome(_) | Self::Action(_) => 0,
        }
    }
}

impl Loss {
    /// Creates a record of a loss that is reported now.
    pub fn now(place: &str, count: u64) -> Self {
        Self { schema: LOSS.to_owned(), time: Timestamp::now(), place: place.to_owned(), count }
    }
}

impl AgentNotice {
    /// Creates a notice of this agent, now.
    pub fn now(state: AgentState, host: &Host) -> Self {
        Self {
            schema: AGENT.to_owned(),
            time: Timestamp::now(),
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: host.clone(),
        }
    }
}

impl Host {
    /// Returns the running host, without hooks.
    pub fn unwatched() -> Self {
        Self::current("none")
    }

    /// Reads the running host's identity. `hooks` is the name of the attached hook set.
    pub fn current(hooks: &str) -> Self {
        let uname = rustix::system::uname();
        Self {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .ok()
                .map(|id| id.trim().to_owned()),
            hooks: hooks.to_owned(),
        }
    }
}

impl Event {
    /// Creates an event from its parts.
    pub fn new(host: &Host, raw: &RawFailure, evidence: Evidence, diagnosis: Diagnosis) -> Self {
        let boot = host.boot_id.as_deref().and_then(|id| id.get(..8)).unwrap_or("0");
        let id = format!("{boot}-{:x}-{:x}", raw.bind.at_ns, raw.task.tid);
        Self {
            schema: BIND_FAILURE.to_owned(),
            id,
            time: evidence.time,
            count: 1,
            first_seen: None,
            last_seen: None,
            host: host.clone(),
            failure: evidence.failure,
            process: evidence.process,
            netns: evidence.netns,
            sockets: evidence.sockets,
            time_wait: evidence.time_wait,
            connections: evidence.connections,
            ephemeral: evidence.ephemeral,
            last_holder: evidence.last_holder,
            previous_holder: evidence.previous_holder,
            gaps: evidence.gaps,
            diagnosis,
        }
    }

    /// Returns the evidence, without the diagnosis. It is sufficient for a new diagnosis.
    pub fn into_evidence(self) -> Evidence {
        Evidence {
            time: self.time,
            kernel: self.host.kernel,
            subject: Subject::Failed,
            failure: self.failure,
            process: self.process,
            netns: self.netns,
            sockets: self.sockets,
            time_wait: self.time_wait,
            connections: self.connections,
            ephemeral: self.ephemeral,
            last_holder: self.last_holder,
            previous_holder: self.previous_holder,
            gaps: self.gaps,
        }
    }
}

#[cfg(test)]
impl Event {
    /// Returns the same event with the diagnosis of the current rules.
    pub fn diagnosed_again(self) -> Self {
        let diagnosis = crate::diagnose::diagnose(&self.clone().into_evidence());
        Self { diagnosis, ..self }
    }
}
