//! A listener of the other family: an IPv6 wildcard without IPV6_V6ONLY has the
//! port of every IPv4 address too.

use crate::{
    conflict::Overlap,
    diagnose::{
        Cause, HolderClass,
        case::Case,
        cause::{Finding, listener},
        moves::addresses,
    },
    evidence::State,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    if culprit.overlap != Overlap::DualStack {
        return None;
    }
    let (v6only, note) = addresses::narrower(case, culprit)?;
    let mut finding = listener::finding(case, culprit, Cause::DualStack);
    finding.notes.insert(0, note);
    finding.moves.insert(place(&finding), v6only);
    Some(finding)
}

/// Where the option stands among the other moves: one program that binds both families only has
/// to set it. Two services of one port are first of all two services.
pub fn place(finding: &Finding) -> usize {
    match finding.class {
        Some(HolderClass::Itself) => 0,
        Some(HolderClass::OtherService) => 1.min(finding.moves.len()),
        _ => finding.moves.len(),
    }
}
