//! bind() succeeded and listen() failed: with SO_REUSEADDR on both sockets, several can bind
//! one address, but only one of them can listen.

use crate::diagnose::{
    Cause, HolderClass,
    case::Case,
    cause::{Finding, listener},
    moves,
};
use crate::evidence::{Stage, State};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    if case.evidence.failure.stage != Stage::Listen {
        return None;
    }
    let culprit = case.first_in(State::Listen)?;
    let mut finding = listener::finding(case, culprit, Cause::ListenRace);
    finding.notes.insert(
        0,
        "bind() succeeded because both sockets set SO_REUSEADDR; only one of them can listen"
            .to_owned(),
    );
    if finding.class != Some(HolderClass::Itself) {
        finding.moves.push(moves::advice(
            "start only one instance: of two that start at once both can bind, and the second \
             listen() fails",
        ));
    }
    Some(finding)
}
