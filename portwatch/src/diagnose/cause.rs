//! The causes, one per file, tried in order.

use crate::diagnose::{
    Cause, Confidence, Diagnosis, HolderClass, Move,
    case::{Case, Culprit},
    holder, judgement, moves, summary, words, workloads,
};
use crate::evidence::{Process, ProcessState, Socket, Stage};

mod bound_not_listening;
mod client_port;
mod closing;
mod connections_remain;
mod device;
mod dual_stack;
mod gone;
mod listen_race;
mod listener;
mod port_exhausted;
mod reuseport;
mod self_connect;
mod time_wait;
mod udp;
mod undetermined;
mod unseen;
mod wildcard;

/// The result of a rule.
pub struct Finding<'a> {
    pub cause: Cause,
    /// Why the bind failed. It is printed after "could not bind … because".
    pub because: String,
    pub class: Option<HolderClass>,
    pub holder: Option<&'a Process>,
    pub moves: Vec<Move>,
    pub notes: Vec<String>,
    pub confidence: Confidence,
}

type Rule = for<'a> fn(&Case<'a>) -> Option<Finding<'a>>;

/// The order of the rules. First come the causes that need no other socket, then a listener
/// that was there and closed, which explains more than what it left behind, and UDP, which has
/// no states.
///
/// Then the state of the blocking socket decides: a listener, a socket that is only bound, a
/// live connection, a connection that no process has open any more, TIME-WAIT. [`Case`] has put
/// the best explanation first, so each of these rules looks at the same socket, and the first
/// rule that fits says everything about it.
///
/// Among the causes with a listener, the one comes first that says what to change. A program
/// that sets SO_REUSEPORT was meant to share the port, so that is the cause, whatever the
/// addresses are. A listen() that fails is a race. Then comes whatever does not match between
/// the two sockets. A client that is connected to itself is an outgoing connection too, and an
/// outgoing connection is not an accepted one.
///
/// Last come the cases where nothing is there, and where nothing may be listed.
const RULES: [Rule; 18] = [
    port_exhausted::rule,
    gone::meanwhile,
    udp::rule,
    reuseport::uid,
    reuseport::missing,
    listen_race::rule,
    device::rule,
    dual_stack::rule,
    wildcard::rule,
    listener::rule,
    bound_not_listening::rule,
    self_connect::rule,
    client_port::rule,
    connections_remain::rule,
    closing::rule,
    time_wait::rule,
    gone::rule,
    unseen::rule,
];

/// Tries the rules in order.
pub fn decide(case: &Case) -> Diagnosis {
    let finding =
        RULES.iter().find_map(|rule| rule(case)).unwrap_or_else(|| undetermined::finding(case));
    let Finding { cause, because, class, holder, moves, mut notes, confidence } = finding;
    let who = words::process_and_owner(case.process());
    let target = words::target(&case.evidence.failure);
    let failed = match case.evidence.failure.stage {
        _ if case.evidence.is_untried() => {
            let sure = case.first().is_none_or(|culprit| culprit.sure);
            let would = if sure { "would" } else { "may" };
            format!("a bind to {target} {would} fail")
        }
        Stage::Listen => format!("{who} could not listen on {target}"),
        Stage::Bind => format!("{who} could not bind {target}"),
    };
    // What is unknown is not a reason.
    let is_known = !matches!(cause, Cause::Unseen | Cause::Undetermined)
        && (cause != Cause::Gone || confidence != Confidence::Undetermined);
    let link = if is_known { " because " } else { "; " };
    notes.extend(case.elsewhere());
    notes.extend(case.others());
    Diagnosis {
        cause,
        summary: summary::fitted([Some(case.process()), holder], &failed, link, &because),
        refused_by: case.refused_by(),
        holder: class.map(|class| holder::named(class, holder)),
        judgement: class
            .filter(|_| cause != Cause::Gone)
            .and_then(|class| judgement::of(case, class, holder)),
        moves,
        confidence,
        notes,
    }
}

/// Builds the finding where a socket blocks the bind and the suggested action depends on the
/// holder's class. `doing` says what the holder does with the socket. It is printed after the
/// holder's name: `is listening on 0.0.0.0:8080`.
fn held<'a>(case: &Case<'a>, culprit: &Culprit<'a>, cause: Cause, doing: &str) -> Finding<'a> {
    let (class, process) = holder::behind(case.evidence, culprit.socket);
    Finding {
        cause,
        because: who(case, class, process, culprit.socket, doing),
        class: Some(class),
        holder: process,
        moves: moves::against(case, class, process),
        notes: Vec::new(),
        confidence: confidence(culprit, class),
    }
}

/// Builds the finding where a connection blocks the bind. No configuration names the port then,
/// so the only suggested action is to end the connection, because of `why`.
fn connected<'a>(
    case: &Case<'a>,
    culprit: &Culprit<'a>,
    cause: Cause,
    doing: &str,
    why: &str,
) -> Finding<'a> {
    let mut finding = held(case, culprit, cause, doing);
    finding.moves = match (finding.class, finding.holder) {
        // The failing process is not to end itself or its parents.
        (Some(HolderClass::Itself), _) => vec![moves::advice(
            "close that connection in this program, or in its parent, before it binds the port",
        )],
        (_, Some(holder)) => moves::stop(case, holder, why),
        (_, None) => vec![moves::look(case)],
    };
    finding
}

/// Returns the holder with its class, age and activity: `java[31550] (app.service), an older
/// instance, up 7 days, is listening on 0.0.0.0:8080`.
fn who(
    case: &Case,
    class: HolderClass,
    holder: Option<&Process>,
    socket: &Socket,
    doing: &str,
) -> String {
    let Some(holder) = holder else {
        return match class {
            HolderClass::KernelSocket => {
                format!("the kernel itself uses {}; no process has it open", socket.local)
            }
            HolderClass::NoProcess => {
                format!("the kernel keeps {}, which no process has open", socket.local)
            }
            _ => format!("an unidentified process {doing}"),
        };
    };
    let workload = holder.workload.as_ref().and_then(words::workload);
    let behind_proxy = match workload {
        None if workloads::serves_several(holder) => {
            "which has ports open for containers".to_owned()
        }
        known => format!("proxy for {}", known.as_deref().unwrap_or("a container")),
    };
    let what = match class {
        HolderClass::Itself if holder.pid == case.process().pid => {
            return format!("the same process {doing}");
        }
        HolderClass::InFlight => {
            return format!(
                "{} bound {} and passed it on: no process has it open, it is in flight (SCM_RIGHTS) \
                 or in an io_uring",
                words::process_and_owner(holder),
                socket.local
            );
        }
        HolderClass::Itself if holder.ppid == Some(case.process().pid) => Some("its child"),
        HolderClass::Itself => Some("its ancestor"),
        HolderClass::OldInstance => Some("an older instance"),
        HolderClass::Restarted if holder::restarter(case.evidence, holder).is_some() => {
            Some("restarted by its supervisor")
        }
        HolderClass::Restarted => Some("a newer instance"),
        HolderClass::OtherService if !case.evidence.is_untried() => Some("another service"),
        HolderClass::Inherited => Some("which only inherited the socket"),
        HolderClass::Received => Some("which was sent the socket"),
        HolderClass::AppDaemon => Some("for one of its programs"),
        HolderClass::CoreDumping => Some("which is writing a core dump"),
        HolderClass::ContainerProxy => Some(behind_proxy.as_str()),
        _ => None,
    };
    let age = holder.started.and_then(|at| words::age(at, case.evidence.time));
    let age = age.map(|age| format!("up {age}"));
    let stopped = (holder.state == Some(ProcessState::Stopped)).then_some("stopped");
    let about: Vec<&str> = what.into_iter().chain(age.as_deref()).chain(stopped).collect();
    let about = match about.as_slice() {
        [] => String::new(),
        parts => format!(", {},", parts.join(", ")),
    };
    format!("{}{about} {doing}", words::process_and_owner(holder))
}

/// Returns how certain a finding about this socket is: certain if the kernel named the socket,
/// otherwise probable, from what was seen right after the failure.
pub fn confidence(culprit: &Culprit, class: HolderClass) -> Confidence {
    match class {
        HolderClass::Unknown => Confidence::Undetermined,
        _ if culprit.socket.refused == Some(true) => Confidence::Certain,
        _ => Confidence::Likely,
    }
}
