//! What is known about the port besides its sockets: TIME-WAIT, the ephemeral port range, and
//! previous holders.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Process, State};

/// The TIME-WAIT entries on the port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimeWait {
    /// Number of entries.
    pub count: u32,
    /// Milliseconds from the event until the last entry ends (a lower bound: the kernel's
    /// timer may be up to 2 s late).
    pub max_remaining_ms: Option<u64>,
    /// The process whose connections they were.
    pub left_by: Option<LeftBy>,
}

/// TCP connections on the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections {
    /// Connections in use: ESTABLISHED.
    pub established: u32,
    /// Connections that are closing: FIN-WAIT-1 to CLOSING, and CLOSE-WAIT.
    pub closing: u32,
}

/// The port range from which the kernel chooses for outgoing connections and binds of
/// port 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ephemeral {
    /// The first port, from `net.ipv4.ip_local_port_range`.
    pub low: u16,
    /// The last port.
    pub high: u16,
    /// Ports that the kernel does not choose, from `net.ipv4.ip_local_reserved_ports`:
    /// `8080,9000-9100`.
    pub reserved: String,
    /// Use of the range; only collected if no port of it was free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl Ephemeral {
    /// Returns whether the kernel may choose the port.
    pub fn contains(&self, port: u16) -> bool {
        (self.low..=self.high).contains(&port) && !self.reserves(port)
    }

    /// Returns whether the port is excluded from the range.
    pub fn reserves(&self, port: u16) -> bool {
        self.reserved.split(',').any(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let ends = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
            matches!(ends, (Ok(first), Ok(last)) if (first..=last).contains(&port))
        })
    }
}

/// Use of the ephemeral port range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Usage {
    /// Number of ports in the range that have a socket.
    pub ports: u32,
    /// Number of sockets by state.
    pub states: BTreeMap<State, u32>,
    /// The process with most of the sockets, estimated from a sample.
    pub most_by: Option<Share>,
}

/// One process's share of a sample of sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Share {
    /// The process.
    pub process: Process,
    /// Number of its sockets in the sample.
    pub sockets: u32,
    /// Number of all sockets in the sample.
    pub of: u32,
}

/// The previous holder of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastHolder {
    /// The process, as it was when it bound the socket.
    pub process: Process,
    /// The socket's cookie.
    pub cookie: u64,
    /// The socket's own address when it was bound.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// `SO_REUSEADDR`, as it was when the socket was bound or began to listen.
    #[serde(default)]
    pub reuseaddr: Option<bool>,
    /// `SO_REUSEPORT`, likewise.
    #[serde(default)]
    pub reuseport: Option<bool>,
    /// When it bound the port or began to listen; `None` if that was before the agent
    /// started.
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub bound: Option<Timestamp>,
    /// When its listener was closed; `None` while it is listening, and for sockets whose
    /// close the hooks do not see (UDP, and bound but not listening).
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub left: Option<Timestamp>,
}

/// The process that left the TIME-WAIT entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftBy {
    /// The process.
    pub pid: u32,
    /// Its program.
    pub program: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// When its listener was closed.
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub left: Option<Timestamp>,
}
