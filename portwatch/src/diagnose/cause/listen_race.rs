//! bind() has passed and listen() was refused: with SO_REUSEADDR on both,
//! several may bind one address, and one of them may listen.

use crate::diagnose::{
    Cause,
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
        "bind() passed because both sockets have SO_REUSEADDR; only one of them may listen"
            .to_owned(),
    );
    finding.moves.push(moves::advice(
        "start one instance only: two that race will both bind, and the slower one fails here",
    ));
    Some(finding)
}
