//! The plan and the result of `free` in words.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::{
    event::action::{Action, Result as Came},
    free::plan::{Consent, Proposal},
    sinks::deed,
    text::sanitize::printable,
};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const LABEL: Style = Style::new().dimmed();

/// The plan, in the lines of a block.
pub fn plan(proposal: &Proposal) -> String {
    let mut text = String::new();
    let mut row = |label: &str, said: &str| {
        let _ = writeln!(text, "  {LABEL}{label:<10}{LABEL:#}  {}", printable(said));
    };
    for (number, step) in proposal.steps.iter().enumerate() {
        row(if number == 0 { "plan" } else { "then" }, &step.command);
    }
    row("ends", &proposal.ends);
    for obstacle in &proposal.obstacles {
        row("but", obstacle);
    }
    for follows in &proposal.follows {
        row("after", follows);
    }
    text
}

/// The question to a person.
pub fn question(proposal: &Proposal) -> &'static str {
    match proposal.consent {
        Consent::Likely => "Do it? [y/N] ",
        Consent::Check => "Somebody may be using it. Do it? [y/N] ",
    }
}

/// What came of it.
pub fn result(action: &Action) -> String {
    let mut text = String::new();
    for step in &action.steps {
        let _ = writeln!(text, "{}", printable(&step.what));
        for process in step.signalled.iter().filter(|process| !process.exited) {
            let still = format!(
                "  {}[{}] is still running after {}",
                process.comm, process.pid, process.signal
            );
            let _ = writeln!(text, "{}", printable(&still));
        }
    }
    let style = if action.result.is_free() || action.result == Came::Planned { GOOD } else { BAD };
    let why = if action.why.is_empty() { String::new() } else { format!(": {}", action.why) };
    let _ = writeln!(
        text,
        "{} {style}{}{style:#}{}",
        printable(&deed::port(action)),
        deed::stands(action),
        printable(&why)
    );
    text
}
