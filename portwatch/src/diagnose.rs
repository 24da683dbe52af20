//! Evidence to diagnosis: which socket refused the bind by which rule, who is
//! behind it, and what an expert would do. Pure: no clock, no files, no
//! environment. What is unknown is said to be unknown.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, Time};

mod case;
mod cause;
mod holder;
mod judgement;
mod moves;
pub(crate) mod program;
pub(crate) mod words;
mod workloads;

/// The verdict on one refused bind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// What the kernel's refusal came from.
    pub cause: Cause,
    /// One sentence of under 200 characters that stands alone.
    pub summary: String,
    /// The sockets that refused, by the kernel's rule.
    pub refused_by: Vec<RefusedBy>,
    /// Who is behind the first of them.
    pub holder: Option<Holder>,
    /// Whether the holder may be stopped, with the evidence; `None` where there is
    /// none that could be.
    #[serde(default)]
    pub judgement: Option<Judgement>,
    /// What to do, best first.
    pub moves: Vec<Move>,
    /// How sure this is.
    pub confidence: Confidence,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Diagnosis {
    /// Whether its notes have every gap: where nothing that was seen explains the failure.
    pub fn tells_gaps(&self) -> bool {
        matches!(self.cause, Cause::Undetermined | Cause::Unseen)
    }
}

/// What a refusal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// A listening socket on that address and port.
    Listener,
    /// A listener, where one side has the wildcard address.
    Wildcard,
    /// A listener of the other address family, across `[::]`.
    DualStack,
    /// Both have SO_REUSEPORT, for different users.
    #[serde(rename = "reuseport.uid")]
    #[strum(serialize = "reuseport.uid")]
    ReuseportUid,
    /// Only one side has SO_REUSEPORT.
    #[serde(rename = "reuseport.missing")]
    #[strum(serialize = "reuseport.missing")]
    ReuseportMissing,
    /// A socket is bound and never listened.
    BoundNotListening,
    /// bind() passed and listen() failed.
    ListenRace,
    /// Only TIME-WAIT, and the bind lacks SO_REUSEADDR.
    #[serde(rename = "time_wait.app_lacks_reuseaddr")]
    #[strum(serialize = "time_wait.app_lacks_reuseaddr")]
    TimeWaitAppLacksReuseaddr,
    /// Only TIME-WAIT, and the old sockets lacked SO_REUSEADDR.
    #[serde(rename = "time_wait.old_lacked_reuseaddr")]
    #[strum(serialize = "time_wait.old_lacked_reuseaddr")]
    TimeWaitOldLackedReuseaddr,
    /// Connections are left whose processes are gone: FIN-WAIT, CLOSING, LAST-ACK.
    Closing,
    /// The listener is gone, and a process has connections that it accepted.
    ConnectionsRemain,
    /// The port is the source of somebody's outgoing connection.
    ClientPort,
    /// A client has connected to itself.
    SelfConnect,
    /// SO_BINDTODEVICE on one side only.
    Device,
    /// A UDP socket on that address and port.
    Udp,
    /// No free ephemeral port is left.
    PortExhausted,
    /// By the time anyone looked, nothing was there.
    Gone,
    /// The sockets there could not be looked at with the agent's rights.
    Unseen,
    /// None of the others.
    Undetermined,
}

/// A socket that refused, and the clause, both in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedBy {
    /// The socket: state, address and inode.
    pub socket: String,
    /// The clause of the kernel's rule.
    pub rule: String,
}

/// Who is behind the refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(with = "Option<Time>")]
    pub started: Option<Timestamp>,
}

/// Kinds of holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum HolderClass {
    /// The same program, older.
    OldInstance,
    /// Its supervisor has started it again: it is younger than the one that failed,
    /// or has just followed an earlier process on the port.
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
    /// It has inherited the socket from the process that bound it, which is gone.
    Inherited,
    /// Only one thread's table of files has the socket.
    ThreadOnly,
    /// It is writing a core dump.
    CoreDumping,
    /// The failing process itself, or an ancestor of it.
    #[serde(rename = "self")]
    #[strum(serialize = "self")]
    Itself,
    /// The kernel itself: a tunnel, a file server.
    KernelSocket,
    /// Its descriptor is under way to a process, or lies in an io_uring.
    InFlight,
    /// No process: the kernel keeps it.
    NoProcess,
    /// Could not be found out.
    Unknown,
}

/// Whether a holder may be stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judgement {
    /// The answer.
    pub safe_to_stop: SafeToStop,
    /// What speaks for it.
    #[serde(rename = "for")]
    pub pro: Vec<String>,
    /// What speaks against it.
    #[serde(rename = "against")]
    pub contra: Vec<String>,
}

/// An answer that is no more than what the evidence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SafeToStop {
    /// All that is known speaks for it.
    Likely,
    /// Something speaks against it, or nothing for it: a person should look.
    Check,
    /// It is somebody else's service, or nothing that can be stopped.
    No,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Move {
    /// A command that can be pasted; `None` where it takes a change of code or
    /// configuration.
    pub command: Option<String>,
    /// Why, or what to change.
    pub why: String,
    /// What it does to others.
    pub risk: Risk,
}

/// What a move does to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Risk {
    /// Nothing.
    None,
    /// It ends a service that may be in use.
    Interrupts,
    /// It may lose data.
    Destructive,
}

/// How sure a diagnosis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Confidence {
    /// The kernel named the socket.
    Certain,
    /// The only reading that fits what was seen right after.
    Likely,
    /// Something is missing; the notes or gaps say what.
    Undetermined,
}

/// Diagnoses.
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    cause::decide(&case::Case::new(evidence))
}

#[cfg(test)]
mod tests;
