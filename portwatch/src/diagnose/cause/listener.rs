//! A listening socket on the very address: the article's first shape.

use crate::diagnose::{
    Cause,
    case::{Case, Culprit},
    cause::{Finding, held},
    moves,
};
use crate::evidence::State;

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    Some(finding(case, culprit, Cause::Listener))
}

/// What all causes have in common that a listener is behind.
pub fn finding<'a>(case: &Case<'a>, culprit: &Culprit<'a>, cause: Cause) -> Finding<'a> {
    let doing = format!("is listening on {}", culprit.socket.local);
    let mut finding = held(case, culprit, cause, &doing);
    finding.notes.extend(moves::aftermath(case, finding.class, finding.holder));
    finding
}
