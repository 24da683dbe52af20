//! A listener of the other family: an IPv6 wildcard without IPV6_V6ONLY has the
//! port of every IPv4 address too.

use crate::{
    conflict::Overlap,
    diagnose::{
        Cause, HolderClass,
        case::Case,
        cause::{Finding, listener},
        moves,
    },
    evidence::{Family, State},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    if culprit.overlap != Overlap::DualStack {
        return None;
    }
    let mut finding = listener::finding(case, culprit, Cause::DualStack);
    finding.notes.insert(
        0,
        "a socket on [::] without IPV6_V6ONLY also covers every IPv4 address".to_owned(),
    );
    let whose = match case.evidence.failure.family {
        Family::Ipv6 => "this program's IPv6 socket",
        Family::Ipv4 => "the existing IPv6 socket",
    };
    let v6only = moves::advice(format!(
        "set IPV6_V6ONLY on {whose} before it binds (nginx: listen [::]:{port} ipv6only=on), or \
         keep only the listener on [::], which serves both families",
        port = case.evidence.failure.port
    ));
    // One program that binds both families only has to be told.
    let first = matches!(finding.class, Some(HolderClass::Itself | HolderClass::OtherService));
    finding.moves.insert(if first { 0 } else { finding.moves.len() }, v6only);
    Some(finding)
}
