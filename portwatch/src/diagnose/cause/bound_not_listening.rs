//! A TCP socket that is bound, but neither listening nor connected. Most tools do not show it.

use crate::diagnose::{
    Cause,
    case::Case,
    cause::{Finding, held},
};
use crate::evidence::State;

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Bound)?;
    let doing = format!("is bound to {} but not listening", culprit.socket.local);
    let mut finding = held(case, culprit, Cause::BoundNotListening, &doing);
    finding.notes.push(
        "a socket that is bound but not listening does not appear in /proc/net/tcp, lsof -i and \
         most other listings"
            .to_owned(),
    );
    Some(finding)
}
