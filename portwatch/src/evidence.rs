//! What is known about one refused bind: plain data, no behaviour.
//!
//! Every fact is known, or `None` with a [`Gap`] that says why. These types
//! are the wire form as well: an event line carries them as they stand
//! ([`crate::event`]), so a captured event is all that a later diagnosis needs.

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::schema::Time;

pub(crate) mod bounds;
mod port;
mod process;
mod socket;
mod texts;

pub use crate::{engines::Engine, supervisors::SupervisorKind};
pub use port::{Connections, Ephemeral, LastHolder, LeftBy, Share, TimeWait, Usage};
pub use process::{Cgroup, Pod, Process, Runtime, Supervisor, Voucher, Workload, user_of_cgroup};
pub use socket::{Binder, Origin, Socket, State, Unheld};

/// Everything that [`crate::diagnose`] may look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// When the kernel refused.
    #[schemars(with = "Time")]
    pub time: Timestamp,
    /// The kernel's release, `uname -r`: its rules differ between versions. In an
    /// event it stands in `host`.
    pub kernel: String,
    /// What was asked of the kernel.
    pub failure: Failure,
    /// Who asked; with pid 0 nobody yet.
    pub process: Process,
    /// Where.
    pub netns: Netns,
    /// Every socket on that port there. TIME-WAIT rows beyond a few are only
    /// counted in `time_wait`.
    pub sockets: Vec<Socket>,
    /// The TIME-WAIT rows on that port, all of them.
    pub time_wait: TimeWait,
    /// The connections on that port, counted.
    #[serde(default)]
    pub connections: Connections,
    /// The ports that the kernel gives away by itself there; `None` if they could
    /// not be read.
    #[serde(default)]
    pub ephemeral: Option<Ephemeral>,
    /// Who was on the port last, by the agent's own record; `None` if nobody was
    /// since it has started, or the record has made room for newer ones.
    pub last_holder: Option<LastHolder>,
    /// Who was on the port before that one.
    #[serde(default)]
    pub previous_holder: Option<LastHolder>,
    /// What could not be had, and why.
    pub gaps: Vec<Gap>,
}

/// The refused system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Which call was refused.
    pub stage: Stage,
    /// The error's name, `EADDRINUSE`.
    pub errno: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The socket's address family.
    pub family: Family,
    /// The requested address.
    pub address: IpAddr,
    /// The requested port; 0 asked for any free one.
    pub port: u16,
    /// `SO_BINDTODEVICE`.
    pub device: Option<Device>,
    /// `SO_REUSEADDR`.
    pub reuseaddr: Option<bool>,
    /// `SO_REUSEPORT`.
    pub reuseport: Option<bool>,
    /// `IPV6_V6ONLY`; `None` for IPv4 sockets too.
    pub v6only: Option<bool>,
    /// The socket's owner.
    pub uid: Option<u32>,
    /// The socket's cookie.
    pub cookie: Option<u64>,
}

/// The system call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `bind(2)`.
    Bind,
    /// `listen(2)`, after `bind(2)` had passed.
    Listen,
    /// A port was wanted by `connect(2)` or `sendto(2)`.
    Autobind,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, the first subflow of MPTCP included.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    Udplite,
    /// SCTP.
    Sctp,
    /// ICMP echo sockets, whose identifier takes the port's place.
    Icmp,
    /// Anything else.
    Other,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::Ipv6 } else { Self::Ipv4 }
    }
}

impl Failure {
    /// A bind that nobody has tried: with SO_REUSEADDR or without, and with no other
    /// option. Its user is not known.
    pub fn untried(protocol: Protocol, address: IpAddr, port: u16, reuseaddr: bool) -> Self {
        Self {
            stage: Stage::Bind,
            errno: "EADDRINUSE".to_owned(),
            protocol,
            family: Family::of(address),
            address,
            port,
            device: None,
            reuseaddr: Some(reuseaddr),
            reuseport: Some(false),
            v6only: address.is_ipv6().then_some(false),
            uid: None,
            cookie: None,
        }
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Its index in the network namespace.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
}

/// The network namespace of the failing socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Netns {
    /// Its inode in nsfs, as `readlink /proc/PID/ns/net` shows it.
    pub inode: Option<u32>,
    /// Its cookie, never used twice in one boot.
    pub cookie: Option<u64>,
    /// Its name in `/run/netns`.
    pub name: Option<String>,
    /// Whether it is the host's, that is, the one of pid 1.
    pub host: Option<bool>,
}

/// For facts that are left out where they are not so.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A fact that could not be had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The fact, in the event's own field names where it has one.
    pub what: String,
    /// The reason.
    pub why: String,
    /// Whether it was a matter of rights (EACCES, EPERM).
    #[serde(default, skip_serializing_if = "is_false")]
    pub denied: bool,
}

impl Gap {
    /// Not all of the sockets in TIME-WAIT were counted.
    pub const TIME_WAIT: &str = "time_wait";
    /// Not all of the connections were counted.
    pub const CONNECTIONS: &str = "connections";

    /// What comes before a number that one of the `gaps` says is not all of them.
    pub fn at_least(gaps: &[Self], what: &str) -> &'static str {
        if gaps.iter().any(|gap| gap.what == what) { "at least " } else { "" }
    }

    /// A gap for the fact `what`.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), denied: false }
    }

    /// A gap that more rights would close.
    pub fn denied(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { denied: true, ..Self::new(what, why) }
    }

    /// A gap because of `error`, which may be a matter of rights.
    pub fn of_error(
        what: impl Into<String>,
        why: impl Into<String>,
        error: &std::io::Error,
    ) -> Self {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        Self { denied, ..Self::new(what, why) }
    }
}

impl Evidence {
    /// Whether nobody has tried this bind: it is asked what would refuse it
    /// ([`crate::explain`]).
    pub fn is_untried(&self) -> bool {
        self.process.pid == 0
    }
}

#[cfg(test)]
impl Evidence {
    /// A TCP bind of 0.0.0.0:80 by `process`, refused beside `sockets`.
    pub fn refused(process: Process, sockets: Vec<Socket>) -> Self {
        Self {
            time: Timestamp::UNIX_EPOCH,
            kernel: "6.12.0".to_owned(),
            failure: Failure {
                stage: Stage::Bind,
                errno: "EADDRINUSE".to_owned(),
                protocol: Protocol::Tcp,
                family: Family::Ipv4,
                address: std::net::Ipv4Addr::UNSPECIFIED.into(),
                port: 80,
                device: None,
                reuseaddr: Some(false),
                reuseport: Some(false),
                v6only: None,
                uid: Some(0),
                cookie: Some(1),
            },
            process,
            netns: Netns { inode: Some(1), cookie: Some(1), name: None, host: Some(true) },
            sockets,
            time_wait: TimeWait::default(),
            connections: Connections::default(),
            ephemeral: None,
            last_holder: None,
            previous_holder: None,
            gaps: Vec::new(),
        }
    }
}
