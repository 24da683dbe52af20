//! Nothing that was seen explains the failed bind, or no rule here explains it.

use crate::diagnose::{
    Cause, Confidence, HolderClass,
    case::Case,
    cause::{Finding, held},
    moves, words,
};

pub fn finding<'a>(case: &Case<'a>) -> Finding<'a> {
    let mut finding = match case.first() {
        Some(culprit) => {
            let doing = format!("has {} open", culprit.socket.local);
            let mut finding = held(case, culprit, Cause::Undetermined, &doing);
            finding.because =
                format!("{} conflicts with it; {}", words::socket(culprit.socket), finding.because);
            finding
        }
        None => Finding {
            cause: Cause::Undetermined,
            because: "what blocked it is not known".to_owned(),
            class: Some(HolderClass::Unknown),
            holder: None,
            moves: Vec::new(),
            notes: Vec::new(),
            confidence: Confidence::Undetermined,
        },
    };
    finding.moves = vec![moves::look(case)];
    finding.notes.extend(missing(case));
    finding.confidence = Confidence::Undetermined;
    finding
}

/// Returns the missing evidence as notes.
pub fn missing(case: &Case) -> Vec<String> {
    case.evidence.gaps.iter().map(|gap| format!("not known: {}: {}", gap.what, gap.why)).collect()
}
