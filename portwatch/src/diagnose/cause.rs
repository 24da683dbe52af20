//! The causes, one per file, tried in order.

use crate::diagnose::{
    Cause, Confidence, Diagnosis, HolderClass, Move,
    case::{Case, Culprit},
    holder, words,
};
use crate::evidence::{Process, Socket};

mod bound_not_listening;
mod gone;
mod listener;
mod port_exhausted;
mod time_wait;
mod udp;
mod undetermined;

/// What a rule found.
pub struct Finding<'a> {
    pub cause: Cause,
    /// What stands in the way, to be read after "cannot bind …:".
    pub because: String,
    pub class: Option<HolderClass>,
    pub holder: Option<&'a Process>,
    pub moves: Vec<Move>,
    pub notes: Vec<String>,
    pub confidence: Confidence,
}

type Rule = for<'a> fn(&Case<'a>) -> Option<Finding<'a>>;

/// The order: what needs no other socket first; then by protocol; then what a
/// process holds before what the kernel alone keeps, because a listener refuses
/// whatever else there is. Last, what nothing explains.
const RULES: [Rule; 6] = [
    port_exhausted::rule,
    udp::rule,
    listener::rule,
    bound_not_listening::rule,
    time_wait::rule,
    gone::rule,
];

/// Tries the rules.
pub fn decide(case: &Case) -> Diagnosis {
    let finding =
        RULES.iter().find_map(|rule| rule(case)).unwrap_or_else(|| undetermined::finding(case));
    let Finding { cause, because, class, holder, moves, notes, confidence } = finding;
    let summary = format!(
        "{} cannot {} {}: {because}",
        words::process_and_owner(case.process()),
        match case.evidence.failure.stage {
            crate::evidence::Stage::Listen => "listen on",
            _ => "bind",
        },
        words::target(&case.evidence.failure),
    );
    Diagnosis {
        cause,
        summary: words::under_200(summary),
        refused_by: case.refused_by(),
        holder: class.map(|class| holder::named(class, holder)),
        moves,
        confidence,
        notes,
    }
}

/// `java[31550] (session 91 of deploy), an older instance, has it since … (7 days)`.
pub fn who(case: &Case, class: HolderClass, holder: Option<&Process>, socket: &Socket) -> String {
    let Some(holder) = holder else {
        return match class {
            HolderClass::KernelSocket => {
                format!("the kernel itself holds {}, for no process", socket.local)
            }
            HolderClass::NoProcess => "no process has it open, the kernel keeps it".to_owned(),
            _ => format!(
                "{} is held, and which process has it open could not be found out",
                socket.local
            ),
        };
    };
    let workload = holder.workload.as_ref().and_then(words::workload);
    let behind_proxy = format!(", for {},", workload.as_deref().unwrap_or("a container"));
    let what = match class {
        HolderClass::Itself if holder.pid == case.process().pid => {
            return format!("it already holds {} itself", socket.local);
        }
        HolderClass::InFlight => {
            return format!(
                "the socket on {} is in no process's table: its descriptor is under way, it seems \
                 to {}",
                socket.local,
                words::process_and_owner(holder)
            );
        }
        HolderClass::Itself => ", a parent of it,",
        HolderClass::OldInstance => ", an older instance,",
        HolderClass::Restarted => ", a younger instance,",
        HolderClass::OtherService => ", another service,",
        HolderClass::ContainerProxy => &behind_proxy,
        _ => "",
    };
    let since = holder
        .started
        .map(|at| {
            let age = words::age(at, case.evidence.time);
            let age = age.map(|age| format!(" ({age})")).unwrap_or_default();
            format!(", up since {}{age}", words::minute(at))
        })
        .unwrap_or_default();
    let verb = words::state(socket).to_lowercase();
    let verb = match verb.as_str() {
        "listen" => "listens on",
        "bound" => "has bound",
        _ => "holds",
    };
    format!("{}{what} {verb} {}{since}", words::process_and_owner(holder), socket.local)
}

/// How sure a finding about this socket is: certain with the kernel's own word;
/// without it, what was seen right after is the likely answer.
pub fn confidence(culprit: &Culprit, class: HolderClass) -> Confidence {
    match class {
        HolderClass::Unknown => Confidence::Undetermined,
        _ if culprit.socket.refused == Some(true) => Confidence::Certain,
        _ => Confidence::Likely,
    }
}
