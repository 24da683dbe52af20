//! Nothing on the port any more: who had it let go within milliseconds.

use crate::diagnose::{Cause, Confidence, Move, Risk, case::Case, cause::Finding, moves};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    // Only what was looked at can be known to be empty.
    let unseen =
        case.evidence.gaps.iter().any(|gap| gap.what == "netns" || gap.what.starts_with("sockets"));
    if unseen || !case.culprits.is_empty() {
        return None;
    }
    Some(Finding {
        cause: Cause::Gone,
        because: "whatever held the port had let go of it when it was looked at".to_owned(),
        class: None,
        holder: None,
        moves: vec![
            Move {
                command: None,
                why: "try again: the port is free now".to_owned(),
                risk: Risk::None,
            },
            moves::look(case),
        ],
        notes: Vec::new(),
        confidence: Confidence::Likely,
    })
}
