//! A listener, where one side wants every address and the other a specific one:
//! 127.0.0.53:53 and 0.0.0.0:53.

use crate::{
    conflict::Overlap,
    diagnose::{
        Cause, HolderClass,
        case::Case,
        cause::{Finding, listener},
        moves,
    },
    evidence::State,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    let local = culprit.socket.local;
    let (note, advice) = match culprit.overlap {
        Overlap::HolderWildcard => (
            format!("the listener on {local} covers every address"),
            moves::advice(format!(
                "bind the listening program to the one address that it needs: that frees {} for this \
                 program",
                case.evidence.failure.address
            )),
        ),
        Overlap::BindWildcard => (
            format!("the bind asks for every address, and {} is one of them", local.ip()),
            moves::advice(format!(
                "bind the one address that is needed (not {}) instead of every address",
                local.ip()
            )),
        ),
        _ => return None,
    };
    let mut finding = listener::finding(case, culprit, Cause::Wildcard);
    finding.notes.insert(0, note);
    // Two services can live side by side; what should not be there is stopped
    // first.
    let first = !case.evidence.is_untried()
        && matches!(
            finding.class,
            Some(HolderClass::OtherService | HolderClass::Container | HolderClass::ContainerProxy)
        );
    finding.moves.insert(if first { 0 } else { finding.moves.len() }, advice);
    Some(finding)
}
