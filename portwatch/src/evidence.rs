//! What is known about one refused bind: plain data, no behaviour.
//!
//! Every fact is known, or `None` with a [`Gap`] that says why. These types
//! are the wire form as well: an event line carries them as they stand
//! ([`crate::event`]), so a captured event is all that a later diagnosis needs.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::schema::Time;

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
    /// Who asked.
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

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// Its index in the network namespace.
    pub index: u32,
    /// Its name.
    pub name: Option<String>,
}

/// A process, as far as it could be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// The process id in the initial pid namespace.
    pub pid: u32,
    /// The failing thread; for a holder the thread whose table of files has the
    /// descriptor, where the process's other threads do not share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// The descriptor of the socket, for a holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<u32>,
    /// The parent.
    pub ppid: Option<u32>,
    /// Its number in the pid namespace that it lives in, where that is not the
    /// initial one: what `ps` shows in its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Whether it is writing a core dump, and keeps its descriptors until that
    /// is done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub core_dumping: bool,
    /// Whether it was no longer there when it was looked at: what stands here is
    /// what the record has of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
    /// Whether its first thread has ended; other threads may go on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub zombie: bool,
    /// The failing process's ancestors, nearest first, pid 1 left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<u32>,
    /// The thread's or process's name.
    pub comm: Option<String>,
    /// The executable's path; ends in ` (deleted)` where the file is gone.
    pub exe: Option<String>,
    /// The arguments; empty where unknown.
    pub cmdline: Vec<String>,
    /// What its program is written in or runs on; looked at for the failing
    /// process only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The real user id.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<String>,
    /// When the process started.
    #[schemars(with = "Option<Time>")]
    pub started: Option<Timestamp>,
    /// Its control group.
    pub cgroup: Option<Cgroup>,
    /// The systemd unit, from the cgroup path.
    pub unit: Option<String>,
    /// The user whose service manager runs `unit`; absent for the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_owner: Option<u32>,
    /// The container, from the cgroup path.
    pub container: Option<String>,
    /// The Kubernetes pod's uid, from the cgroup path.
    pub pod: Option<String>,
    /// The login session, from the cgroup path.
    pub session: Option<String>,
    /// The user who logged in, where there is a session; another than `user`
    /// after sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_user: Option<String>,
    /// The controlling terminal: `pts/3`. A process that was left running when
    /// its terminal closed has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// What keeps the process running, and would start it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Supervisor>,
    /// The container that the process runs in, or that it holds the port for
    /// (docker-proxy), as its engine knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What a program is written in or runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Python.
    Python,
    /// Node.js, Deno or Bun.
    Node,
    /// Java or another language of the JVM.
    Java,
    /// Go.
    Go,
    /// Rust.
    Rust,
    /// Ruby.
    Ruby,
    /// Perl.
    Perl,
    /// PHP.
    Php,
    /// .NET.
    Dotnet,
    /// Machine code of another origin: C or C++ as a rule.
    Native,
}

/// What keeps a process running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Supervisor {
    /// Its kind.
    pub kind: SupervisorKind,
    /// Its name for what it runs: the unit, program or service folder.
    pub name: Option<String>,
    /// Its own process; `None` for systemd's system manager.
    pub pid: Option<u32>,
    /// systemd's `Restart=`: `no`, `on-failure`, `always` …
    pub restart: Option<String>,
    /// How often it has started the process again (systemd's `NRestarts`).
    pub restarts: Option<u32>,
}

/// A kind of supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SupervisorKind {
    /// systemd, of the system or of a user.
    Systemd,
    /// supervisord.
    Supervisord,
    /// pm2.
    Pm2,
    /// runit's `runsv`.
    Runit,
    /// s6's `s6-supervise`.
    S6,
    /// A shell that runs a loop.
    Shell,
}

/// A container, as its engine or the kubelet knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// Who runs it.
    pub engine: Engine,
    /// The container's full id.
    pub id: Option<String>,
    /// Its name; in a pod the container's name in the pod's specification.
    pub name: Option<String>,
    /// Its image's name.
    pub image: Option<String>,
    /// The pod that it belongs to.
    pub pod: Option<Pod>,
    /// What it has published, if the process holds the port for it:
    /// `127.0.0.1:8080->80/tcp`.
    pub published: Option<String>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd, in most cases for Kubernetes.
    Containerd,
    /// CRI-O.
    Crio,
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cgroup {
    /// The cgroup2 id.
    pub id: Option<u64>,
    /// The path below the hierarchy's root.
    pub path: Option<String>,
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmdline: Vec<String>,
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
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
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
    FinWait1,
    /// This side has closed; the other has not (`tcp_fin_timeout` ends it).
    #[serde(rename = "FIN-WAIT-2")]
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
