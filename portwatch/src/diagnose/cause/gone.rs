//! Nothing on the port any more: who had it let go within milliseconds. The
//! agent's record says who that was.

use crate::{
    diagnose::{
        Cause, Confidence, HolderClass, Move, Risk, case::Case, cause::Finding, holder, moves,
        words,
    },
    evidence::LastHolder,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    // Only what was looked at can be known to be empty.
    let unseen =
        case.evidence.gaps.iter().any(|gap| gap.what == "netns" || gap.what.starts_with("sockets"));
    if unseen || !case.culprits.is_empty() {
        return None;
    }
    let last = case.evidence.last_holder.as_ref().filter(|last| was_there(case, last));
    let class = last.map(|last| holder::of_one(case.evidence, &last.process));
    Some(Finding {
        cause: Cause::Gone,
        because: match last {
            Some(last) => held_until(case, last, class),
            None => "whatever held the port had let go of it when it was looked at".to_owned(),
        },
        class,
        holder: last.map(|last| &last.process),
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

/// Whoever closed its listener before the refusal did not refuse.
fn was_there(case: &Case, last: &LastHolder) -> bool {
    last.bound.is_none_or(|bound| bound <= case.evidence.time)
        && last.left.is_none_or(|left| left >= case.evidence.time)
}

fn held_until(case: &Case, last: &LastHolder, class: Option<HolderClass>) -> String {
    let what = match class {
        Some(HolderClass::OldInstance) => ", an older instance,",
        Some(HolderClass::OtherService) => ", another service,",
        _ => "",
    };
    let who = words::process_and_owner(&last.process);
    match last.left {
        Some(left) => {
            let ms = left.duration_since(case.evidence.time).as_millis();
            format!("{who}{what} had it and let go of it {ms} ms later")
        }
        None => format!("{who}{what} had it and is gone"),
    }
}
