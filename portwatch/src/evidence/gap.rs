//! Evidence that is missing, and why.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

use super::is_false;

/// A missing piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gap {
    /// The missing evidence; the event's field name, if it has one.
    pub what: Fact,
    /// The reason.
    pub why: String,
    /// Whether the agent was not permitted to read it (EACCES, EPERM).
    #[serde(default, skip_serializing_if = "is_false")]
    pub denied: bool,
}

/// What a gap is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fact {
    /// The requested address.
    #[serde(rename = "failure.address")]
    Address,
    /// The device that the failing socket is bound to.
    #[serde(rename = "failure.device")]
    Device,
    /// SO_REUSEADDR and SO_REUSEPORT of the failing socket.
    #[serde(rename = "failure.reuseaddr")]
    ReuseAddr,
    /// The failing socket's owner.
    #[serde(rename = "failure.uid")]
    SocketUid,
    /// The failing process's program.
    #[serde(rename = "process.exe")]
    Exe,
    /// All of the failing process's arguments.
    #[serde(rename = "process.cmdline")]
    Arguments,
    /// The failing process's unit.
    #[serde(rename = "process.unit")]
    Unit,
    /// The network namespace, and with it all that is in there.
    #[serde(rename = "netns")]
    Netns,
    /// That the namespace is the socket's own.
    #[serde(rename = "netns.cookie")]
    NetnsCookie,
    /// Which namespace is the host's.
    #[serde(rename = "netns.host")]
    NetnsHost,
    /// The sockets on the port, or some of them.
    #[serde(rename = "sockets")]
    Sockets,
    /// Sockets that are bound and do not listen.
    #[serde(rename = "sockets.bound")]
    Bound,
    /// Processes that have the sockets open.
    #[serde(rename = "sockets.holders")]
    Holders,
    /// More processes that have the sockets open.
    #[serde(rename = "sockets.holders.more")]
    MoreHolders,
    /// The unit that a holder listens for.
    #[serde(rename = "sockets.holders.unit")]
    HolderUnit,
    /// What holds a socket that no process has open.
    #[serde(rename = "sockets.unheld")]
    Unheld,
    /// All of the sockets in TIME-WAIT.
    #[serde(rename = "time_wait")]
    TimeWait,
    /// All of the connections.
    #[serde(rename = "connections")]
    Connections,
    /// How the range of ephemeral ports is used.
    #[serde(rename = "ephemeral.usage")]
    EphemeralUsage,
    /// All ports that are kept out of that range.
    #[serde(rename = "ephemeral.reserved")]
    EphemeralReserved,
    /// Whether a process of the owner record still has the socket open.
    #[serde(rename = "holder.fd")]
    HolderFd,
    /// Arguments of processes that did not answer for their memory.
    #[serde(rename = "cmdline")]
    Cmdline,
    /// What keeps a process running.
    #[serde(rename = "supervisor")]
    Supervisor,
    /// The container as its engine knows it.
    #[serde(rename = "workload")]
    Workload,
    /// How the failing process exited, or whether it did.
    #[serde(rename = "exit")]
    Exit,
    /// Successful binds after the failed one.
    #[serde(rename = "bound")]
    Success,
    /// Processes that the failing process has started.
    #[serde(rename = "process.children")]
    Children,
    /// What a service manager knows of the failing process's unit.
    #[serde(rename = "unit.restarts")]
    Restarts,
    /// More gaps.
    #[serde(rename = "gaps")]
    Gaps,
    /// One that another version knows.
    #[serde(untagged)]
    Other(String),
}

impl Fact {
    /// Returns whether this fact is needed to say which sockets are on the port, or which
    /// processes have them open.
    pub fn is_of_the_sockets(&self) -> bool {
        matches!(
            self,
            Self::Netns
                | Self::Sockets
                | Self::Bound
                | Self::Holders
                | Self::MoreHolders
                | Self::HolderUnit
                | Self::Unheld
        )
    }

    /// Returns whether the sockets on the port were not listed if this fact is missing.
    pub fn is_the_listing(&self) -> bool {
        matches!(self, Self::Netns | Self::Sockets)
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Fact {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl Gap {
    /// Returns the words to print before a count, if one of the `gaps` says that the count is
    /// incomplete.
    pub fn at_least(gaps: &[Self], what: &Fact) -> &'static str {
        if gaps.iter().any(|gap| gap.what == *what) { "at least " } else { "" }
    }

    /// Creates a gap for the fact `what`.
    pub fn new(what: Fact, why: impl Into<String>) -> Self {
        Self { what, why: why.into(), denied: false }
    }

    /// Creates a gap that would not exist with more capabilities.
    pub fn denied(what: Fact, why: impl Into<String>) -> Self {
        Self { denied: true, ..Self::new(what, why) }
    }

    /// Creates a gap because of `error`, which may mean that capabilities are missing.
    pub fn of_error(what: Fact, why: impl Into<String>, error: &io::Error) -> Self {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        Self { denied, ..Self::new(what, why) }
    }
}
