//! The plan and the result of `free` in words.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use anstyle::{AnsiColor, Style};

use crate::{
    event::action::{Action, Result as Came},
    evidence::Device,
    free::plan::{Consent, Proposal},
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
    let stands = match action.result {
        Came::AlreadyFree | Came::Freed | Came::Waited => "is free",
        Came::Planned => "was not touched",
        Came::Refused | Came::Declined => "is still held",
        Came::Failed | Came::Taken | Came::TimedOut | Came::Interrupted => "is not free",
    };
    let after = match action.result {
        Came::Freed | Came::Waited | Came::TimedOut | Came::Taken => {
            format!(" after {:.1} s", Duration::from_millis(action.took_ms).as_secs_f64())
        }
        _ => String::new(),
    };
    let why = if action.why.is_empty() { String::new() } else { format!(": {}", action.why) };
    let _ = writeln!(
        text,
        "{} {style}{stands}{style:#}{after}{}",
        printable(&name(action)),
        printable(&why)
    );
    text
}

/// `tcp *:8080`.
fn name(action: &Action) -> String {
    let Action { protocol, address, device, port, .. } = action;
    let place = match address {
        Some(address) => SocketAddr::new(*address, *port).to_string(),
        None => format!("*:{port}"),
    };
    let device = device
        .as_ref()
        .map(|Device { index, name }| name.clone().unwrap_or_else(|| index.to_string()));
    let device = device.map(|name| format!(" on {name}")).unwrap_or_default();
    format!("{protocol} {place}{device}")
}
