//! Nothing that was seen explains the refusal, or not by any rule here.

use crate::diagnose::{
    Cause, Confidence,
    case::Case,
    cause::{Finding, who},
    holder, moves, words,
};

pub fn finding<'a>(case: &Case<'a>) -> Finding<'a> {
    let culprit = case.first();
    let (class, process) = culprit
        .map(|culprit| holder::behind(case.process(), culprit.socket))
        .map_or((None, None), |(class, process)| (Some(class), process));
    let because = match culprit {
        Some(culprit) => format!(
            "{} is in the way; {}",
            words::socket(culprit.socket),
            who(
                case,
                class.unwrap_or(crate::diagnose::HolderClass::Unknown),
                process,
                culprit.socket
            ),
        ),
        None => "what refused could not be seen".to_owned(),
    };
    let notes = case
        .evidence
        .gaps
        .iter()
        .map(|gap| format!("not known: {}: {}", gap.what, gap.why))
        .collect();
    Finding {
        cause: Cause::Undetermined,
        because,
        class,
        holder: process,
        moves: vec![moves::look(case)],
        notes,
        confidence: Confidence::Undetermined,
    }
}
