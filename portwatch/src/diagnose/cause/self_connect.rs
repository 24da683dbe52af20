//! A client that is connected to itself: the kernel chose the port that the client connects to
//! as its source port (TCP's simultaneous open, RFC 9293).

use crate::diagnose::{
    Cause,
    case::Case,
    cause::{Finding, client_port, connected},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_connection()?;
    if culprit.socket.remote != Some(culprit.socket.local) {
        return None;
    }
    let doing = format!("is connected to itself on {}", culprit.socket.local);
    let why = "it is connected to itself and releases the port when it exits";
    let mut finding = connected(case, culprit, Cause::SelfConnect, &doing, why);
    finding.moves.extend(client_port::keep_out(case));
    finding.notes.push(
        "a client that keeps connecting to a port in the ephemeral range while nothing listens \
         there can get that very port as its source, and so connect to itself"
            .to_owned(),
    );
    Some(finding)
}
