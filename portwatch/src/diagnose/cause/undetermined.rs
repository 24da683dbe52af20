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
            who(case, class.unwrap_or(crate::diagnose::HolderClass::Unknown), process, culprit.socket),
        ),
        None if case.evidence.gaps.is_empty() => {
            "nothing on that port was left to be seen when it was looked at".to_owned()
        }
        None => format!("what refused could not be seen ({})", case.evidence.gaps.len()),
    };
    let mut notes: Vec<_> = case
        .evidence
        .gaps
        .iter()
        .map(|gap| format!("not known: {}: {}", gap.what, gap.why))
        .collect();
    if culprit.is_none() && notes.is_empty() {
        notes.push("whatever held the port let go of it within milliseconds: try again".to_owned());
    }
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
