//! A listener of the other address family: an IPv6 wildcard socket without IPV6_V6ONLY also
//! covers the port on every IPv4 address.

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

/// Returns the position of the option among the suggested actions. One program that binds both
/// families only has to set it. With two services on one port, the first question is which
/// service should have it.
pub fn place(finding: &Finding) -> usize {
    match finding.class {
        Some(HolderClass::Itself) => 0,
        Some(HolderClass::OtherService) => 1.min(finding.moves.len()),
        _ => finding.moves.len(),
    }
}
