//! Prints the answers of `explain` as notes.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use super::{Note, moment, prose, ss};
use crate::{
    explain::{Explanation, Outcome},
    sinks::human::{a_bind, named},
};

/// Writes a note for each answer.
///
/// # Errors
/// `out` cannot be written.
pub fn explanations(answers: &[Explanation], out: &mut impl Write) -> io::Result<()> {
    answers.iter().try_for_each(|answer| out.write_all(note(answer).as_bytes()))?;
    out.flush()
}

fn note(answer: &Explanation) -> String {
    let Explanation { asked, diagnosis, sockets, host, netns, .. } = answer;
    let mut note = Note::default();
    let stands = match answer.outcome() {
        Outcome::Passes => "free",
        Outcome::Unknown => "not sure",
        Outcome::Refused => "held",
    };
    let _ =
        writeln!(note.0, "## {} on {}: {stands}\n", prose(&named(asked)), prose(&host.hostname));
    if let Some(diagnosis) = diagnosis {
        note.item(&diagnosis.summary);
        note.item(&format!(
            "cause {}, {}; kernel {}",
            diagnosis.cause, diagnosis.confidence, host.kernel
        ));
    }
    if let Some(outcomes) = a_bind(answer) {
        note.item(&format!("a bind {outcomes}"));
    }
    note.item(&format!("at {}", moment(answer.time)));
    if netns.host == Some(false) {
        let name = netns.name.as_deref().unwrap_or("it has no name");
        note.item(&format!("in a network namespace other than the host's: {name}"));
    }
    note.section("What is on the port");
    note.block(&ss(asked.protocol, asked.port, sockets));
    if let Some(diagnosis) = diagnosis {
        for refused in &diagnosis.refused_by {
            note.item(&format!("{}: {}", refused.socket, refused.rule));
        }
        note.holders(diagnosis, sockets);
    }
    note.time_wait(&answer.time_wait, &answer.gaps);
    if let Some(diagnosis) = diagnosis {
        note.what_to_do(diagnosis);
    }
    note.gaps(&answer.gaps);
    note.0.push('\n');
    note.0
}
