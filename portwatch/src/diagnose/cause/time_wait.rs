//! Nothing but TIME-WAIT: no process to stop. Whose option is missing decides
//! what to mend.

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
    let left = seconds.map(|seconds| format!(", {at_least}{seconds} s left")).unwrap_or_default();
    let sockets = if rows.count == 1 { "socket" } else { "sockets" };
    let what =
        format!("{at_least}{} {sockets} of earlier connections in TIME-WAIT{left}", rows.count);
    // Whatever else the two have set, this option decides about TIME-WAIT.
    let (cause, because, moves, note) = match case.evidence.failure.reuseaddr? {
        true => (
            Cause::TimeWaitOldLackedReuseaddr,
            format!("{what}, made without SO_REUSEADDR"),
            vec![wait(
                case,
                lasts,
                "one last wait: this program sets SO_REUSEADDR, so what it leaves \
                             behind will not block it again",
            )],
            "SO_REUSEADDR helps against TIME-WAIT only where the old sockets had it too",
        ),
        false => (
            Cause::TimeWaitAppLacksReuseaddr,
            match case.evidence.is_untried() {
                true => format!("{what}, which block all that do not set SO_REUSEADDR"),
                false => format!("{what}, and the program does not set SO_REUSEADDR"),
            },
            vec![
                set_reuseaddr(case),
                wait(
                    case,
                    lasts,
                    "until then: there is nothing to kill, the kernel keeps these for 60 s",
                ),
            ],
            "TIME-WAIT lasts 60 s and is no sysctl; tcp_fin_timeout is about FIN-WAIT-2",
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
