//! A socket on the port.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Device, Process};
use crate::redact::Cmdline;

/// A socket on the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Socket {
    /// Its state.
    pub state: State,
    /// Its own end, as the kernel compares it.
    pub local: SocketAddr,
    /// The other end, for a connected socket.
    pub remote: Option<SocketAddr>,
    /// Its inode in sockfs; `None` where the kernel alone holds it.
    pub inode: Option<u64>,
    /// Its cookie.
    pub cookie: Option<u64>,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its cgroup2 id.
    pub cgroup_id: Option<u64>,
    /// `SO_REUSEADDR`.
    pub reuseaddr: Option<bool>,
    /// `SO_REUSEPORT`.
    pub reuseport: Option<bool>,
    /// `IPV6_V6ONLY`; `None` for IPv4 sockets too.
    pub v6only: Option<bool>,
    /// `SO_BINDTODEVICE`.
    pub device: Option<Device>,
    /// Milliseconds until the kernel forgets it (a lower bound), for TIME-WAIT
    /// and orphans.
    pub expires_ms: Option<u64>,
    /// Whether the kernel's own conflict check ended at this socket; `None` where
    /// the hooks do not see it.
    #[serde(default)]
    pub refused: Option<bool>,
    /// Who bound it, by the agent's record, where that is none of the holders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binder: Option<Binder>,
    /// Which end began the connection, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What has it, where no process has it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheld: Option<Unheld>,
    /// The processes that have it open; where [`Unheld::InFlight`], who bound it and
    /// is still there.
    pub holders: Vec<Process>,
}

/// Which end began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The other: it came in through a listener here.
    Accepted,
    /// This one: the port is its source.
    Outgoing,
}

/// What has a socket that no process has open, though it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unheld {
    /// The kernel itself: a tunnel, a file server.
    Kernel,
    /// Its descriptor is under way to a process, or lies in an io_uring.
    InFlight,
    /// One of the two, and whose it is is not known.
    Nobody,
}

/// Who bound a socket that others hold now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binder {
    /// The process.
    pub pid: u32,
    /// Its name then.
    pub comm: String,
    /// The beginning of its arguments then.
    #[serde(default, skip_serializing_if = "Cmdline::is_empty")]
    pub cmdline: Cmdline,
    /// Whether it is still there.
    pub alive: bool,
}

impl Socket {
    /// A socket of which no more is known.
    pub fn bare(state: State, local: SocketAddr, cookie: Option<u64>) -> Self {
        Self {
            state,
            local,
            remote: None,
            inode: None,
            cookie,
            uid: None,
            cgroup_id: None,
            reuseaddr: None,
            reuseport: None,
            v6only: None,
            device: None,
            expires_ms: None,
            refused: None,
            binder: None,
            origin: None,
            unheld: None,
            holders: Vec::new(),
        }
    }
}

/// A socket's state, in the words of `ss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[derive(Serialize, Deserialize, JsonSchema)]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
#[strum(serialize_all = "SCREAMING-KEBAB-CASE")]
pub enum State {
    /// Listening.
    Listen,
    /// TCP: bound, and neither listening nor connected.
    Bound,
    /// UDP: bound, not connected.
    Unconn,
    /// Connected.
    Established,
    /// Connecting.
    SynSent,
    /// A request that the listener has not yet accepted.
    SynRecv,
    /// This side has closed; its FIN is not acknowledged.
    #[serde(rename = "FIN-WAIT-1")]
    #[strum(serialize = "FIN-WAIT-1")]
    FinWait1,
    /// This side has closed; the other has not (`tcp_fin_timeout` ends it).
    #[serde(rename = "FIN-WAIT-2")]
    #[strum(serialize = "FIN-WAIT-2")]
    FinWait2,
    /// The other side has closed; this one's program has not.
    CloseWait,
    /// Both have closed; the last acknowledgement is missing.
    LastAck,
    /// Both closed at once.
    Closing,
    /// Closed, remembered for 60 s.
    TimeWait,
}
