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
    let count = case.evidence.connections;
    let doing = match u64::from(count.established) + u64::from(count.closing) {
        0 | 1 => "has a connection that was accepted".to_owned(),
        many => format!("has {many} connections that were accepted"),
    };
    let doing = format!("{doing} on {}; nobody listens there", culprit.socket.local);
    let why = "it goes on with connections that it accepted on the port";
    let mut finding = connected(case, culprit, Cause::ConnectionsRemain, &doing, why);
    if case.evidence.failure.reuseaddr == Some(false) && culprit.socket.reuseaddr != Some(false) {
        finding.moves.insert(0, moves::set_reuseaddr(case));
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
