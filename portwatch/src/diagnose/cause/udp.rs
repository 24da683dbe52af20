//! A UDP socket on the address and port.

use crate::{
    diagnose::{
        Cause,
        case::Case,
        cause::{Finding, confidence, who},
        holder, moves,
    },
    evidence::Protocol,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    if !matches!(case.evidence.failure.protocol, Protocol::Udp | Protocol::Udplite) {
        return None;
    }
    let culprit = case.first()?;
    let (class, process) = holder::behind(case.process(), culprit.socket);
    Some(Finding {
        cause: Cause::Udp,
        because: who(case, class, process, culprit.socket),
        class: Some(class),
        holder: process,
        moves: moves::against(case, class, process),
        notes: Vec::new(),
        confidence: confidence(culprit, class),
    })
}
