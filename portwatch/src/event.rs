//! The versioned records of the stream.

use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    decode::RawFailure,
    diagnose::Diagnosis,
    evidence::{
        Connections, Ephemeral, Evidence, Failure, Gap, LastHolder, Netns, Process, Socket,
        TimeWait,
    },
    kernel::plan::HookSet,
};

/// The schema of [`Event`].
pub const BIND_FAILURE: &str = "portwatch/bind-failure/v1";
/// The schema of [`Loss`].
pub const LOSS: &str = "portwatch/loss/v1";

/// A refused bind with everything known about it: one line of the stream, and
/// all that a later diagnosis needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// [`BIND_FAILURE`].
    pub schema: String,
    /// Unique on this host: boot, time and thread.
    pub id: String,
    /// When the kernel refused.
    pub time: Timestamp,
    /// How many equal failures this stands for.
    pub count: u64,
    /// Where the agent runs.
    pub host: Host,
    /// See [`Evidence`].
    pub failure: Failure,
    /// See [`Evidence`].
    pub process: Process,
    /// See [`Evidence`].
    pub netns: Netns,
    /// See [`Evidence`].
    pub sockets: Vec<Socket>,
    /// See [`Evidence`].
    pub time_wait: TimeWait,
    /// See [`Evidence`].
    #[serde(default)]
    pub connections: Connections,
    /// See [`Evidence`].
    #[serde(default)]
    pub ephemeral: Option<Ephemeral>,
    /// See [`Evidence`].
    #[serde(default)]
    pub last_holder: Option<LastHolder>,
    /// See [`Evidence`].
    #[serde(default)]
    pub previous_holder: Option<LastHolder>,
    /// See [`Evidence`].
    pub gaps: Vec<Gap>,
    /// The verdict.
    pub diagnosis: Diagnosis,
}

/// The machine and how it is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `uname -n`.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// The set of hooks: `fexit` or `tracepoint`.
    pub hooks: String,
}

/// Records that were lost, by the place that lost them. Nothing is lost
/// silently: events and losses together account for every refused bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// [`LOSS`].
    pub schema: String,
    /// When this was said.
    pub time: Timestamp,
    /// The place: `ring`, `queue`, `decode`, `sink`, …
    #[serde(rename = "where")]
    pub place: String,
    /// How many.
    pub count: u64,
}

/// A line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Record {
    /// A refused bind.
    BindFailure(Box<Event>),
    /// A loss.
    Loss(Loss),
}

impl Host {
    /// Reads the running host's identity.
    pub fn current(set: HookSet) -> Self {
        let uname = rustix::system::uname();
        Self {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .ok()
                .map(|id| id.trim().to_owned()),
            hooks: set.name().to_owned(),
        }
    }
}

impl Event {
    /// Puts an event together.
    pub fn new(host: &Host, raw: &RawFailure, evidence: Evidence, diagnosis: Diagnosis) -> Self {
        let Evidence {
            time,
            // The host has it.
            kernel: _,
            failure,
            process,
            netns,
            sockets,
            time_wait,
            connections,
            ephemeral,
            last_holder,
            previous_holder,
            gaps,
        } = evidence;
        let boot = host.boot_id.as_deref().and_then(|id| id.get(..8)).unwrap_or("0");
        Self {
            schema: BIND_FAILURE.to_owned(),
            id: format!("{boot}-{:x}-{:x}", raw.at_ns, raw.task.tid),
            time,
            count: 1,
            host: host.clone(),
            failure,
            process,
            netns,
            sockets,
            time_wait,
            connections,
            ephemeral,
            last_holder,
            previous_holder,
            gaps,
            diagnosis,
        }
    }

    /// What was known, without what was made of it: all that it takes to
    /// diagnose it again.
    pub fn into_evidence(self) -> Evidence {
        Evidence {
            time: self.time,
            kernel: self.host.kernel,
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
