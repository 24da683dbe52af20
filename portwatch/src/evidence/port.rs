//! What is known of the port beside its sockets: what is left on it, the range that
//! it may be in, and who had it.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Process, State, Time};

/// The TIME-WAIT rows on the port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWait {
    /// How many there are.
    pub count: u32,
    /// When the last of them ends, in milliseconds from the event (a lower
    /// bound; the kernel's timer may be up to 2 s late).
    pub max_remaining_ms: Option<u64>,
    /// The process that left them behind.
    pub left_by: Option<LeftBy>,
}

/// TCP connections on the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connections {
    /// In use: ESTABLISHED.
    pub established: u32,
    /// On their way out: the states from FIN-WAIT-1 to CLOSING and CLOSE-WAIT.
    pub closing: u32,
}

/// The ports of a network namespace that the kernel gives to outgoing
/// connections and to binds of port 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ephemeral {
    /// The first, `net.ipv4.ip_local_port_range`.
    pub low: u16,
    /// The last.
    pub high: u16,
    /// `net.ipv4.ip_local_reserved_ports`: those that are kept out of it, as
    /// `8080,9000-9100`.
    pub reserved: String,
    /// How the range is used; only looked at where none of it was free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl Ephemeral {
    /// Whether the kernel may give the port away.
    pub fn contains(&self, port: u16) -> bool {
        (self.low..=self.high).contains(&port) && !self.reserves(port)
    }

    /// Whether the port is kept out of the range.
    pub fn reserves(&self, port: u16) -> bool {
        self.reserved.split(',').any(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let ends = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
            matches!(ends, (Ok(first), Ok(last)) if (first..=last).contains(&port))
        })
    }
}

/// What the sockets on ephemeral ports are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Ports of the range that a socket has.
    pub ports: u32,
    /// Sockets by their state.
    pub states: BTreeMap<State, u32>,
    /// Who has most of them, by a sample of those that a process has.
    pub most_by: Option<Share>,
}

/// Somebody's part in a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// The process.
    pub process: Process,
    /// Its sockets in the sample.
    pub sockets: u32,
    /// All sockets of the sample.
    pub of: u32,
}

/// Who was on a port last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// When it bound the port or began to listen; `None` if that was before the
    /// agent's start.
    #[schemars(with = "Option<Time>")]
    pub bound: Option<Timestamp>,
    /// When its listener closed; `None` while it listens, and for sockets whose
    /// end is not seen (UDP, and those that only bind).
    #[schemars(with = "Option<Time>")]
    pub left: Option<Timestamp>,
}

/// Who left TIME-WAIT rows behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftBy {
    /// The process.
    pub pid: u32,
    /// Its program.
    pub program: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// When it left the port.
    #[schemars(with = "Option<Time>")]
    pub left: Option<Timestamp>,
}
