//! The listener is closed, and a process still has connections open that the listener accepted.
//! They have the listener's address and port.

use crate::diagnose::{
    Cause, Confidence, HolderClass,
    case::Case,
    cause::{Finding, client_port, connected},
    moves,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_connection()?;
    // Without a process, it is a connection that the kernel alone closes.
    culprit.socket.inode?;
    let known = client_port::is_outgoing(case, culprit.socket).is_some();
    let doing = match (known, culprit.socket.remote) {
        (false, Some(remote)) => {
            format!("has a connection between {} and {remote}", culprit.socket.local)
        }
        _ => format!("still has an accepted connection open on {}", culprit.socket.local),
    };
    let why = match known {
        true => "it still has connections open that were accepted on the port",
        false => "its connection uses the port until it is closed",
    };
    let mut finding = connected(case, culprit, Cause::ConnectionsRemain, &doing, why);
    if !known && !matches!(finding.class, Some(HolderClass::Itself)) {
        let chosen = client_port::by_itself(culprit.socket.local.port());
        finding.moves.insert(0, moves::advice(format!("if that program is a client: {chosen}")));
    }
    if case.evidence.failure.reuseaddr == Some(false) && culprit.socket.reuseaddr != Some(false) {
        finding.moves.insert(0, moves::set_reuseaddr(case));
    }
    let count = case.evidence.connections;
    let open = u64::from(count.established) + u64::from(count.closing);
    if open > 1 {
        finding.notes.push(format!(
            "nothing is listening on the port; {open} connections are still open on it, in one or \
             several processes"
        ));
    }
    if known {
        finding.notes.push(
            "an accepted connection keeps its listener's port until it is closed: probably a \
             graceful shutdown has not finished, or a worker was left behind"
                .to_owned(),
        );
    } else {
        finding.notes.push(
            "which side opened the connection is not known: it is older than the agent. If this \
             side did, the port is its source port. If the other side did, a listener here accepted \
             it and was closed"
                .to_owned(),
        );
        finding.confidence = Confidence::Undetermined;
    }
    if finding.class == Some(HolderClass::Unknown) {
        finding.notes.push("no process that has the connection open was found".to_owned());
    }
    Some(finding)
}
