//! The listener is gone, and a process goes on with connections that it
//! accepted: they have the listener's address and port.

use crate::diagnose::{
    Cause, Confidence, HolderClass,
    case::Case,
    cause::{Finding, client_port, connected},
    moves,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_connection()?;
    // Without a process it is one that the kernel alone brings to its end.
    culprit.socket.inode?;
    let doing = format!("still has a connection accepted on {}", culprit.socket.local);
    let why = "it goes on with connections that it accepted on the port";
    let mut finding = connected(case, culprit, Cause::ConnectionsRemain, &doing, why);
    if case.evidence.failure.reuseaddr == Some(false) && culprit.socket.reuseaddr != Some(false) {
        finding.moves.insert(0, moves::set_reuseaddr(case));
    }
    let count = case.evidence.connections;
    let open = u64::from(count.established) + u64::from(count.closing);
    if open > 1 {
        finding.notes.push(format!(
            "nobody listens on the port, and {open} connections are left of the listener, in one \
             process or in several"
        ));
    }
    finding.notes.push(
        "a graceful shutdown that has not ended, or a worker that was forgotten: an accepted \
         connection keeps the port of its listener until it is closed"
            .to_owned(),
    );
    if client_port::is_outgoing(case, culprit.socket).is_none() {
        finding.notes.push(
            "which end began the connection is not known: it is older than the agent".to_owned(),
        );
        finding.confidence = Confidence::Undetermined;
    }
    if finding.class == Some(HolderClass::Unknown) {
        finding.notes.push("who has the connection open was not found".to_owned());
    }
    Some(finding)
}
