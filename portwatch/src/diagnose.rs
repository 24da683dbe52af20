//! Turns evidence into a diagnosis: which socket blocks the bind, by which rule, which process
//! has it open, and what an expert would do. Pure: no clock, no files, no environment. What is
//! unknown is reported as unknown.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use act::Act;

use crate::evidence::Evidence;

pub mod act;
mod asked;
mod case;
mod cause;
mod holder;
mod judgement;
mod moves;
pub(crate) mod program;
pub mod responsibility;
mod side_port;
mod summary;
pub(crate) mod words;
mod workloads;

/// The diagnosis of one failed bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Diagnosis {
    /// Why the bind failed.
    pub cause: Cause,
    /// One sentence of under 200 characters that is complete by itself.
    pub summary: String,
    /// The sockets that block the bind, by the kernel's rule.
    pub refused_by: Vec<RefusedBy>,
    /// Who holds the first of them.
    pub holder: Option<Holder>,
    /// Whether the holder is safe to stop, with the reasons; `None` without a process
    /// that could be stopped.
    #[serde(default)]
    pub judgement: Option<Judgement>,
    /// Suggested actions, best first.
    pub moves: Vec<Move>,
    /// How certain the diagnosis is.
    pub confidence: Confidence,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Diagnosis {
    /// Returns whether the notes list every gap: they do where nothing that was seen explains
    /// the failure.
    pub fn tells_gaps(&self) -> bool {
        matches!(self.cause, Cause::Undetermined | Cause::Unseen)
    }
}

/// Why a bind failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// A listening socket on that address and port.
    Listener,
    /// A listener; one of the two sockets has the wildcard address.
    Wildcard,
    /// A listener of the other address family: a socket on `[::]` covers both.
    DualStack,
    /// Both sockets set SO_REUSEPORT and belong to different users.
    #[serde(rename = "reuseport.uid")]
    #[strum(serialize = "reuseport.uid")]
    ReuseportUid,
    /// Only one of the two sockets sets SO_REUSEPORT.
    #[serde(rename = "reuseport.missing")]
    #[strum(serialize = "reuseport.missing")]
    ReuseportMissing,
    /// A socket is bound and not listening.
    BoundNotListening,
    /// bind() succeeded and listen() failed.
    ListenRace,
    /// Only sockets in TIME-WAIT, and the bind does not set SO_REUSEADDR.
    #[serde(rename = "time_wait.app_lacks_reuseaddr")]
    #[strum(serialize = "time_wait.app_lacks_reuseaddr")]
    TimeWaitAppLacksReuseaddr,
    /// Only sockets in TIME-WAIT, and they did not set SO_REUSEADDR.
    #[serde(rename = "time_wait.old_lacked_reuseaddr")]
    #[strum(serialize = "time_wait.old_lacked_reuseaddr")]
    TimeWaitOldLackedReuseaddr,
    /// Connections that no process has open: FIN-WAIT, CLOSING, LAST-ACK.
    Closing,
    /// The listener is closed, and a process still has accepted connections open.
    ConnectionsRemain,
    /// The port is the source port of an outgoing connection.
    ClientPort,
    /// A client is connected to itself.
    SelfConnect,
    /// Only one of the two sockets sets SO_BINDTODEVICE.
    Device,
    /// A UDP socket on that address and port.
    Udp,
    /// No free ephemeral port is left.
    PortExhausted,
    /// The blocking socket was closed before the agent looked.
    Gone,
    /// The agent is not permitted to list the sockets there.
    Unseen,
    /// None of the others.
    Undetermined,
}

/// A socket that blocks the bind, and the rule by which it does, both in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefusedBy {
    /// The socket: state, address and inode.
    pub socket: String,
    /// The clause of the kernel's rule.
    pub rule: String,
}

/// Who holds the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Holder {
    /// What kind of holder it is.
    pub class: HolderClass,
    /// Its pid.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its descriptor of the socket.
    pub fd: Option<u32>,
    /// Its user.
    pub user: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// Its container.
    pub container: Option<String>,
    /// Its login session.
    pub session: Option<String>,
    /// When it started.
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub started: Option<Timestamp>,
}

/// Kinds of holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum HolderClass {
    /// An older instance of the same program.
    OldInstance,
    /// Restarted by its supervisor: it started after the failing process, or has just
    /// replaced an earlier process on the port.
    Restarted,
    /// Another program or service.
    OtherService,
    /// Started by hand in a login session.
    Squatter,
    /// A helper that holds the port for a container.
    ContainerProxy,
    /// A process in a container.
    Container,
    /// kube-proxy, for a Service's NodePort.
    KubeProxy,
    /// systemd, for a `.socket` unit.
    SocketUnit,
    /// It inherited the socket from the process that bound it, which has exited.
    Inherited,
    /// It cannot have inherited the socket: another process sent it (SCM_RIGHTS).
    Received,
    /// A daemon that has the port open for one of its programs: pm2, xinetd.
    AppDaemon,
    /// Only the file table of one of its threads has the socket.
    ThreadOnly,
    /// It is writing a core dump.
    CoreDumping,
    /// The failing process itself, or an ancestor of it.
    #[serde(rename = "self")]
    #[strum(serialize = "self")]
    Itself,
    /// The kernel itself: a tunnel, a file server.
    KernelSocket,
    /// Its descriptor is in flight to a process, or in an io_uring.
    InFlight,
    /// No process has it open: the kernel keeps it.
    NoProcess,
    /// It could not be determined.
    Unknown,
}

/// Whether a holder is safe to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Judgement {
    /// The answer.
    pub safe_to_stop: SafeToStop,
    /// The reasons for stopping it.
    #[serde(rename = "for")]
    pub pro: Vec<String>,
    /// The reasons against stopping it.
    #[serde(rename = "against")]
    pub contra: Vec<String>,
}

/// Whether it is safe, as far as the evidence shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SafeToStop {
    /// All evidence is in favour of it.
    Likely,
    /// There is evidence against it, or none in favour of it: a person should check.
    Check,
    /// It is another service, or nothing that can be stopped.
    No,
}

/// A suggested action.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Move {
    /// A command to paste; `None` for a change of code or configuration.
    pub command: Option<String>,
    /// Why, or what to change.
    pub why: String,
    /// The effect of the command on others.
    pub risk: Risk,
    /// What the command does, if it ends what holds the port. Not recorded: an old event says
    /// nothing about the processes of now.
    #[serde(skip)]
    pub act: Option<Act>,
}

/// By what is recorded.
impl PartialEq for Move {
    fn eq(&self, other: &Self) -> bool {
        (&self.command, &self.why, self.risk) == (&other.command, &other.why, other.risk)
    }
}

/// The effect of an action on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Risk {
    /// No effect.
    None,
    /// It stops a service that may be in use.
    Interrupts,
    /// It may lose data.
    Destructive,
}

/// How certain a diagnosis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Confidence {
    /// The kernel named the socket.
    Certain,
    /// The only explanation that fits what was seen right after the failure.
    Likely,
    /// Evidence is missing; the notes or gaps say which.
    Undetermined,
}

/// Returns the diagnosis.
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    cause::decide(&case::Case::new(evidence))
}

#[cfg(test)]
mod tests;
