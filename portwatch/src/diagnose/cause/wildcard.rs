//! A listener, where one side binds the wildcard address and the other a specific one:
//! 127.0.0.53:53 and 0.0.0.0:53.

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
    if !matches!(culprit.overlap, Overlap::HolderWildcard | Overlap::BindWildcard) {
        return None;
    }
    let (advice, note) = addresses::narrower(case, culprit)?;
    let mut finding = listener::finding(case, culprit, Cause::Wildcard);
    finding.notes.insert(0, note);
    // Two services can run side by side. A process that should not be there is stopped first, and
    // one program needs only one of its two addresses.
    let first = !case.evidence.is_untried()
        && matches!(
            finding.class,
            Some(HolderClass::OtherService | HolderClass::Container | HolderClass::ContainerProxy)
        );
    let resolver = addresses::of_the_resolver(finding.holder);
    let place = if first || resolver.is_some() { 0 } else { finding.moves.len() };
    finding.moves.splice(place..place, std::iter::once(advice).chain(resolver));
    Some(finding)
}
