//! What is known about one failed bind: plain data without behaviour.
//!
//! Every fact is either known, or `None` with a [`Gap`] that says why. These types are also the
//! wire format: an event contains them unchanged ([`crate::event`]), so a captured event is
//! sufficient for a later diagnosis.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod gap;
mod port;
mod process;
mod socket;
mod texts;
#[cfg(test)]
mod time;

pub use crate::{engines::Engine, supervisors::SupervisorKind};
pub use gap::{Fact, Gap};
pub use port::{Connections, Ephemeral, LastHolder, LeftBy, Share, TimeWait, Usage};
pub use process::{
    Cgroup, ExitCode, Pod, Process, ProcessState, Runtime, Sigterm, Supervisor, Voucher, Workload,
    user_of_cgroup,
};
pub use socket::{Binder, Origin, PortChoice, Socket, State, Unheld};
pub use texts::Texts;
#[cfg(test)]
pub use time::Time;

/// Everything that [`crate::diagnose`] may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Evidence {
    /// When the kernel returned EADDRINUSE.
    #[cfg_attr(test, schemars(with = "crate::evidence::Time"))]
    pub time: Timestamp,
    /// The kernel's release, `uname -r`: its rules differ between versions. An event has it in
    /// `host`.
    pub kernel: String,
    /// Whether the bind was tried.
    pub subject: Subject,
    /// The failed system call and its socket.
    pub failure: Failure,
    /// The failing process; empty if nobody has tried the bind.
    pub process: Process,
    /// The network namespace of the failing socket.
    pub netns: Netns,
    /// Every socket on that port there. Beyond a few, TIME-WAIT entries are only counted in
    /// `time_wait`.
    pub sockets: Vec<Socket>,
    /// All TIME-WAIT entries on the port.
    pub time_wait: TimeWait,
    /// Number of connections on the port.
    #[serde(default)]
    pub connections: Connections,
    /// The ephemeral port range there; `None` if it could not be read.
    #[serde(default)]
    pub ephemeral: Option<Ephemeral>,
    /// The last holder of the port, by the agent's own owner record; `None` if there was none
    /// since the agent started, or newer entries have replaced it.
    pub last_holder: Option<LastHolder>,
    /// The holder before that one.
    #[serde(default)]
    pub previous_holder: Option<LastHolder>,
    /// Missing evidence, and why it is missing.
    pub gaps: Vec<Gap>,
}

/// The subject of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A process has tried it, and the kernel returned EADDRINUSE.
    Failed,
    /// Nobody has tried it: the question is what would block it ([`crate::explain`]).
    Asked,
}

/// The failed system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// The system call that failed.
    pub stage: Stage,
    /// The error's name, `EADDRINUSE`.
    pub errno: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The socket's address family.
    pub family: Family,
    /// The requested address.
    pub address: IpAddr,
    /// The requested port; 0 requests any free port.
    pub port: u16,
    /// `SO_BINDTODEVICE`.
    pub device: Option<Device>,
    /// `SO_REUSEADDR`.
    pub reuseaddr: Option<bool>,
    /// `SO_REUSEPORT`.
    pub reuseport: Option<bool>,
    /// `IPV6_V6ONLY`; also `None` for IPv4 sockets.
    pub v6only: Option<bool>,
    /// The socket's owner.
    pub uid: Option<u32>,
    /// The socket's cookie.
    pub cookie: Option<u64>,
}

/// The system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Stage {
    /// `bind(2)`.
    Bind,
    /// `listen(2)`, after a successful `bind(2)`.
    Listen,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::EnumString, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Protocol {
    /// TCP, the first subflow of MPTCP included.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    Udplite,
    /// SCTP.
    Sctp,
    /// ICMP echo sockets; the identifier is reported as the port.
    Icmp,
    /// Anything else.
    Other,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::Ipv6 } else { Self::Ipv4 }
    }
}

impl Failure {
    /// Returns a bind that no process has attempted, with or without SO_REUSEADDR, and without
    /// other options. Its user is unknown.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Device {
    /// Its index in the network namespace.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
}

/// The network namespace of the failing socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Netns {
    /// Its inode in nsfs, as `readlink /proc/PID/ns/net` shows it.
    pub inode: Option<u32>,
    /// Its cookie, unique within one boot.
    pub cookie: Option<u64>,
    /// Its name in `/run/netns`.
    pub name: Option<String>,
    /// Whether it is the host's namespace, the one of pid 1.
    pub host: Option<bool>,
    /// A process in it other than the failing one, through which it can be entered; searched
    /// where neither a name nor a holder leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// Skips facts in JSON that are false.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Evidence {
    /// Returns whether no process has attempted this bind.
    pub fn is_untried(&self) -> bool {
        self.subject == Subject::Asked
    }
}

#[cfg(test)]
impl Evidence {
    /// A TCP bind of 0.0.0.0:80 by `process`, blocked by `sockets`.
    pub fn refused(process: Process, sockets: Vec<Socket>) -> Self {
        Self {
            time: Timestamp::UNIX_EPOCH,
            kernel: "6.12.0".to_owned(),
            subject: Subject::Failed,
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
            netns: Netns { inode: Some(1), cookie: Some(1), host: Some(true), ..Netns::default() },
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
