//! A client that has connected to itself: the kernel gave it the port that it
//! was calling, as the source of the call (TCP's simultaneous open, RFC 9293).

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
    let doing = format!("has {} in a connection to itself", culprit.socket.local);
    let why = "it talks to itself, and frees the port when it ends";
    let mut finding = connected(case, culprit, Cause::SelfConnect, &doing, why);
    finding.moves.extend(client_port::keep_out(case));
    finding.notes.push(
        "a client that calls a port of the ephemeral range again and again while nobody listens \
         is one day given that port as its source, and then talks to itself"
            .to_owned(),
    );
    Some(finding)
}
