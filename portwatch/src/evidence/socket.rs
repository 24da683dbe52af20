//! A socket on the port.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Device, Process};
use crate::redact::Cmdline;

/// A socket on the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Socket {
    /// Its state.
    pub state: State,
    /// Its local address, as the kernel compares it.
    pub local: SocketAddr,
    /// Its remote address, if it is connected.
    pub remote: Option<SocketAddr>,
    /// Its inode in sockfs; `None` if only the kernel holds it.
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
    /// `IPV6_V6ONLY`; also `None` for IPv4 sockets.
    pub v6only: Option<bool>,
    /// `SO_BINDTODEVICE`.
    pub device: Option<Device>,
    /// Milliseconds until the kernel removes it (a lower bound), for TIME-WAIT and
    /// orphans.
    pub expires_ms: Option<u64>,
    /// Whether the kernel's own conflict check named this socket; `None` if the hooks
    /// cannot see that.
    #[serde(default)]
    pub refused: Option<bool>,
    /// The process that bound it, from the owner record, if another process has it open too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binder: Option<Binder>,
    /// Which end opened the connection, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Who chose the port, if the hooks saw the bind: of a listener, or of a socket bound to a
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_chosen_by: Option<PortChoice>,
    /// What keeps it, if no process has it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheld: Option<Unheld>,
    /// The processes that have it open; for [`Unheld::InFlight`], the process that bound
    /// it, if it still runs.
    pub holders: Vec<Process>,
}

/// Which end opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The remote end: a listener here accepted it.
    Accepted,
    /// The local end: the port is its source port.
    Outgoing,
}

/// Who chose a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PortChoice {
    /// The program asked for the port by its number.
    Program,
    /// The program asked for any free port (port 0), and the kernel chose this one.
    Kernel,
}

/// What keeps a socket that no process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unheld {
    /// The kernel itself: a tunnel, a file server.
    Kernel,
    /// A descriptor in flight between processes, or an io_uring.
    InFlight,
    /// One of the two; which one is not known.
    Nobody,
}

/// The process that bound a socket that others have open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Binder {
    /// The process.
    pub pid: u32,
    /// Its name at that time.
    pub comm: String,
    /// The beginning of its arguments at that time.
    #[serde(default, skip_serializing_if = "Cmdline::is_empty")]
    pub cmdline: Cmdline,
    /// Whether it still runs.
    pub alive: bool,
    /// The real user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub started: Option<Timestamp>,
    /// When it bound the socket, or last called listen(2) for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub bound: Option<Timestamp>,
}

impl Binder {
    /// Returns whether it is the process with that pid and start time.
    pub fn is(&self, pid: u32, started: Option<Timestamp>) -> bool {
        let same_start = self.started.zip(started).is_none_or(|(bound, holds)| bound == holds);
        self.pid == pid && same_start
    }
}

impl Socket {
    /// Returns a socket of which nothing else is known.
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
            port_chosen_by: None,
            unheld: None,
            holders: Vec::new(),
        }
    }
}

/// A socket's state, as `ss` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
#[strum(serialize_all = "SCREAMING-KEBAB-CASE")]
pub enum State {
    /// Listening.
    Listen,
    /// TCP: bound but not listening or connected.
    Bound,
    /// UDP: bound, not connected.
    Unconn,
    /// Connected.
    Established,
    /// Connecting.
    SynSent,
    /// A connection request that the listener has not accepted yet.
    SynRecv,
    /// The local end is closed; its FIN is not acknowledged.
    #[serde(rename = "FIN-WAIT-1")]
    #[strum(serialize = "FIN-WAIT-1")]
    FinWait1,
    /// The local end is closed, the remote end is not (`tcp_fin_timeout` limits it).
    #[serde(rename = "FIN-WAIT-2")]
    #[strum(serialize = "FIN-WAIT-2")]
    FinWait2,
    /// The remote end is closed, the local program has not closed it.
    CloseWait,
    /// Both ends are closed; the last acknowledgement is missing.
    LastAck,
    /// Both ends closed at the same time.
    Closing,
    /// Closed; the kernel keeps it for 60 s.
    TimeWait,
}
