//! Evidence that is missing, and why.

use std::{borrow::Cow, fmt, io};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::is_false;

/// A missing piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The missing evidence; the event's field name, if it has one.
    pub what: Fact,
    /// The reason.
    pub why: String,
    /// Whether the agent was not permitted to read it (EACCES, EPERM).
    #[serde(default, skip_serializing_if = "is_false")]
    pub denied: bool,
}

/// Defines the facts and their names on the wire.
macro_rules! facts {
    ($($(#[$doc:meta])* $fact:ident = $name:literal,)*) => {
        /// The fact that a gap is about.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fact {
            $($(#[$doc])* $fact,)*
            /// One that only another version knows.
            Other(String),
        }

        impl Fact {
            /// Returns its name on the wire.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$fact => $name,)*
                    Self::Other(name) => name,
                }
            }

            /// Returns the fact of a name.
            fn named(name: Cow<'_, str>) -> Self {
                match &*name {
                    $($name => Self::$fact,)*
                    _ => Self::Other(name.into_owned()),
                }
            }
        }
    };
}

facts! {
    /// The requested address.
    Address = "failure.address",
    /// The device that the failing socket is bound to.
    Device = "failure.device",
    /// SO_REUSEADDR and SO_REUSEPORT of the failing socket.
    ReuseAddr = "failure.reuseaddr",
    /// The failing socket's owner.
    SocketUid = "failure.uid",
    /// The failing process's program.
    Exe = "process.exe",
    /// All of the failing process's arguments.
    Arguments = "process.cmdline",
    /// The failing process's unit.
    Unit = "process.unit",
    /// The network namespace, and with it everything in it.
    Netns = "netns",
    /// Whether the namespace is the socket's own.
    NetnsCookie = "netns.cookie",
    /// Which namespace is the host's.
    NetnsHost = "netns.host",
    /// The sockets on the port, or some of them.
    Sockets = "sockets",
    /// Sockets that are bound but not listening.
    Bound = "sockets.bound",
    /// Processes that have the sockets open.
    Holders = "sockets.holders",
    /// More processes that have the sockets open.
    MoreHolders = "sockets.holders.more",
    /// The unit for which a holder listens.
    HolderUnit = "sockets.holders.unit",
    /// What holds a socket that no process has open.
    Unheld = "sockets.unheld",
    /// All of the sockets in TIME-WAIT.
    TimeWait = "time_wait",
    /// All of the connections.
    Connections = "connections",
    /// The use of the ephemeral port range.
    EphemeralUsage = "ephemeral.usage",
    /// All ports that are reserved out of that range.
    EphemeralReserved = "ephemeral.reserved",
    /// Whether a process of the owner record still has the socket open.
    HolderFd = "holder.fd",
    /// Arguments of processes that did not respond when their memory was read.
    Cmdline = "cmdline",
    /// What keeps a process running.
    Supervisor = "supervisor",
    /// The container as its engine knows it.
    Workload = "workload",
    /// More gaps.
    Gaps = "gaps",
}

impl Fact {
    /// Returns whether this fact is needed to say what is on the port, or whose it is.
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
        f.pad(self.name())
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Fact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::named(Cow::<str>::deserialize(deserializer)?))
    }
}

impl JsonSchema for Fact {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl Gap {
    /// Returns the words before a count that one of the `gaps` calls incomplete.
    pub fn at_least(gaps: &[Self], what: &Fact) -> &'static str {
        if gaps.iter().any(|gap| gap.what == *what) { "at least " } else { "" }
    }

    /// Creates a gap for the fact `what`.
    pub fn new(what: Fact, why: impl Into<String>) -> Self {
        Self { what, why: why.into(), denied: false }
    }

    /// Creates a gap that more capabilities would close.
    pub fn denied(what: Fact, why: impl Into<String>) -> Self {
        Self { denied: true, ..Self::new(what, why) }
    }

    /// Creates a gap because of `error`, which may be a lack of capabilities.
    pub fn of_error(what: Fact, why: impl Into<String>, error: &io::Error) -> Self {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        Self { denied, ..Self::new(what, why) }
    }
}
