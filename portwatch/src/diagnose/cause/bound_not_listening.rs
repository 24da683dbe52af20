//! A TCP socket that is bound and neither listens nor is connected. Most tools
//! show no trace of it.

use crate::{
    diagnose::{
        Cause,
        case::Case,
        cause::{Finding, confidence, who},
        holder, moves,
    },
    evidence::State,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Bound)?;
    let (class, process) = holder::behind(case.process(), culprit.socket);
    Some(Finding {
        cause: Cause::BoundNotListening,
        because: match process {
            Some(_) => format!("{}, without listening", who(case, class, process, culprit.socket)),
            None => format!("{}; nobody listens", who(case, class, process, culprit.socket)),
        },
        class: Some(class),
        holder: process,
        moves: moves::against(case, class, process),
        notes: vec![
            "a socket that is bound but does not listen is missing from /proc/net/tcp, \
                     lsof -i and most listings"
                .to_owned(),
        ],
        confidence: confidence(culprit, class),
    })
}
