//! The versioned records of the stream.
//!
//! Fields may be added to a record within its version, optional and with a
//! default. Any other change is a new version, with a fix-up that lets lines of
//! the old one be read ([`versions`]).

use std::fs;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    decode::RawFailure,
    diagnose::{Diagnosis, diagnose},
    evidence::{
        Connections, Ephemeral, Evidence, Failure, Gap, LastHolder, Netns, Process, Socket,
        Subject, Time, TimeWait,
    },
};

pub mod memory;
pub mod read;
pub mod schema;
pub mod versions;

/// The schema of [`Event`].
pub const BIND_FAILURE: &str = "portwatch/bind-failure/v1";
/// The schema of [`Loss`].
pub const LOSS: &str = "portwatch/loss/v1";
/// The schema of [`AgentNotice`].
pub const AGENT: &str = "portwatch/agent/v1";

/// A refused bind with everything known about it: one line of the stream, and
/// all that a later diagnosis needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// `portwatch/bind-failure/v1`.
    pub schema: String,
    /// Unique on this host: boot, time and thread.
    pub id: String,
    /// When the kernel refused.
    #[schemars(with = "Time")]
    pub time: Timestamp,
    /// How many equal failures this stands for.
    pub count: u64,
    /// The first of them, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub first_seen: Option<Timestamp>,
    /// The last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub last_seen: Option<Timestamp>,
    /// Where the agent runs.
    pub host: Host,
    /// What was asked of the kernel.
    pub failure: Failure,
    /// Who asked.
    pub process: Process,
    /// Where.
    pub netns: Netns,
    /// Every socket on that port there.
    pub sockets: Vec<Socket>,
    /// The TIME-WAIT rows on that port, all of them.
    pub time_wait: TimeWait,
    /// The connections on that port, counted.
    #[serde(default)]
    pub connections: Connections,
    /// The ports that the kernel gives away by itself there.
    #[serde(default)]
    pub ephemeral: Option<Ephemeral>,
    /// Who was on the port last, by the agent's own record.
    #[serde(default)]
    pub last_holder: Option<LastHolder>,
    /// Who had the port before the one that has it now.
    #[serde(default)]
    pub previous_holder: Option<LastHolder>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
    /// The verdict.
    pub diagnosis: Diagnosis,
}

/// The machine and how it is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
/// silently: within one stream, events and losses together account for every
/// refused bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// `portwatch/loss/v1`.
    pub schema: String,
    /// When this was said.
    #[schemars(with = "Time")]
    pub time: Timestamp,
    /// The place: `ring`, `queue`, `decode`, `sink.json`, …
    #[serde(rename = "where")]
    pub place: String,
    /// How many.
    pub count: u64,
}

/// The agent's own life: between `started` and `stopped` silence means that no
/// bind was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentNotice {
    /// `portwatch/agent/v1`.
    pub schema: String,
    /// When.
    #[schemars(with = "Time")]
    pub time: Timestamp,
    /// What it does.
    pub state: AgentState,
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Where it runs.
    pub host: Host,
}

/// What the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum AgentState {
    /// It is attached and watches.
    Started,
    /// It has been asked to end, and this stream is complete.
    Stopped,
}

/// A line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Record {
    /// A refused bind.
    BindFailure(Box<Event>),
    /// A loss.
    Loss(Loss),
    /// The agent started or stopped.
    Agent(AgentNotice),
}

impl Record {
    /// How many refusals are not told if this is lost.
    pub fn refusals(&self) -> u64 {
        match self {
            Self::BindFailure(event) => event.count,
            Self::Loss(loss) => loss.count,
            Self::Agent(_) => 0,
        }
    }
}

impl Loss {
    /// A loss that is being said now.
    pub fn now(place: &str, count: u64) -> Self {
        Self { schema: LOSS.to_owned(), time: Timestamp::now(), place: place.to_owned(), count }
    }
}

impl AgentNotice {
    /// This agent, now.
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
    /// The running host, looked at without hooks.
    pub fn unwatched() -> Self {
        Self::current("none")
    }

    /// Reads the running host's identity; `hooks` is the name of the set that watches it.
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
    /// Puts an event together.
    pub fn new(host: &Host, raw: &RawFailure, evidence: Evidence, diagnosis: Diagnosis) -> Self {
        let boot = host.boot_id.as_deref().and_then(|id| id.get(..8)).unwrap_or("0");
        let id = format!("{boot}-{:x}-{:x}", raw.bind.at_ns, raw.task.tid);
        let Evidence {
            time,
            // The host has it.
            kernel: _,
            subject: _,
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
        Self {
            schema: BIND_FAILURE.to_owned(),
            id,
            time,
            count: 1,
            first_seen: None,
            last_seen: None,
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

    /// The same event with the diagnosis that today's rules make of it.
    pub fn diagnosed_again(self) -> Self {
        let diagnosis = diagnose(&self.clone().into_evidence());
        Self { diagnosis, ..self }
    }
}
