//! Only sockets in TIME-WAIT, so there is no process to stop. What to change depends on which
//! socket does not set SO_REUSEADDR.

use crate::{
    diagnose::{
        Cause, HolderClass,
        case::Case,
        cause::{Finding, confidence},
        moves::{set_reuseaddr, wait},
        words,
    },
    evidence::{Fact, Gap, State},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::TimeWait)?;
    let rows = &case.evidence.time_wait;
    let seconds = rows.max_remaining_ms.map(words::seconds);
    let at_least = Gap::at_least(&case.evidence.gaps, &Fact::TimeWait);
    let lasts = seconds.filter(|_| at_least.is_empty()).unwrap_or(60);
    let left = seconds.map(|seconds| format!(" ({at_least}{seconds} s left)")).unwrap_or_default();
    let are = if rows.count == 1 { "connection is" } else { "connections are" };
    let what = format!("{at_least}{} earlier {are} in TIME-WAIT{left}", rows.count);
    // For TIME-WAIT only this option matters, whatever else the two sockets set.
    let (cause, because, moves, note) = match case.evidence.failure.reuseaddr? {
        true => (
            Cause::TimeWaitOldLackedReuseaddr,
            match culprit.sure || !case.evidence.is_untried() {
                true => format!("{what} and did not set SO_REUSEADDR"),
                false => format!("{what}; it does if they did not set SO_REUSEADDR"),
            },
            vec![wait(
                case,
                lasts,
                "wait once: this program sets SO_REUSEADDR, so the connections that it leaves \
                 behind will not block it again",
            )],
            "SO_REUSEADDR helps against TIME-WAIT only if the old sockets set it too",
        ),
        false => (
            Cause::TimeWaitAppLacksReuseaddr,
            match case.evidence.is_untried() {
                true => format!("{what}; they block any bind without SO_REUSEADDR"),
                false => format!("{what} and the program does not set SO_REUSEADDR"),
            },
            vec![
                set_reuseaddr(case),
                wait(
                    case,
                    lasts,
                    "until then, wait: there is no process to stop, TIME-WAIT ends after 60 s",
                ),
            ],
            "TIME-WAIT lasts 60 s and no sysctl changes that; tcp_fin_timeout limits FIN-WAIT-2 only",
        ),
    };
    Some(Finding {
        cause,
        because,
        class: Some(HolderClass::NoProcess),
        holder: None,
        moves,
        notes: vec![note.to_owned()],
        confidence: confidence(culprit, HolderClass::NoProcess),
    })
}
