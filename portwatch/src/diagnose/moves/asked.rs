//! What to do where the command line of the failing program says why it wants the port.

use crate::{
    diagnose::{
        HolderClass, Move,
        asked::{self, Asked},
        case::Case,
        moves::{advice, quote},
        responsibility, words,
    },
    evidence::Process,
};

/// Returns what to change about the failing program, where that is the only thing to do: the
/// running program should stay.
pub fn only(case: &Case, class: HolderClass, holder: Option<&Process>) -> Option<Vec<Move>> {
    let port = case.evidence.failure.port;
    Some(match asked::of(case, class, holder)? {
        Asked::TakesOver { option } => vec![
            advice(format!(
                "end nothing: the failing program was started to take over from {} ({option}), and \
                 tries again until that has released the port",
                holder.map(|it| words::process(it).to_string()).unwrap_or_default(),
            )),
            advice(
                "if it exits all the same, look at its other failed binds: one port that another \
                 program has ends the hand-over",
            ),
        ],
        Asked::Beside { option, what } => vec![
            advice(format!(
                "take {} out of the failing command, or give it another port: it wants port {port} \
                 for {what}; the running program is to stay",
                quote(option)
            )),
            advice(
                "if a service's environment adds the option to every program that its scripts start, \
                 set it only for the server",
            ),
        ],
        Asked::Shared => {
            let name = case.process().comm.as_deref().unwrap_or("the program");
            vec![
                advice(format!(
                    "end nothing if one {name} is enough for both: {} and {} start the same command, \
                     and the port belongs to the one that was first",
                    case.binder(),
                    holder.map(responsibility::called).unwrap_or_default(),
                )),
                advice(format!(
                    "to keep it running when one of the two services stops, run {name} by a unit of \
                     its own that both require; if each needs its own, give one another port"
                )),
            ]
        }
    })
}

/// Returns the action that comes first where the failing program can choose another port by
/// itself.
pub fn takes_another(case: &Case) -> Option<Move> {
    let range = asked::range(case.process(), case.evidence.failure.port)
        .filter(|_| !case.evidence.is_untried())?;
    Some(advice(format!(
        "end nothing if it takes another port: its command line names several ({})",
        quote(range)
    )))
}
