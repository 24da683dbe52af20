//! Prints the answers of `explain` for a terminal.

use std::{
    fmt::Write as _,
    io::{self, Write},
    net::IpAddr,
    os::fd::AsFd,
};

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use jiff::Timestamp;

use super::{Block, HEAD, LABEL, coloured, columns, process_line};
use crate::{
    diagnose::words,
    evidence::{Device, Engine, Fact, Gap, LastHolder, Socket, State},
    explain::{Explanation, Outcome, Question},
    text::sanitize::printable,
};

const FREE: Style = AnsiColor::Green.on_default().bold();
const UNSURE: Style = AnsiColor::Yellow.on_default().bold();

/// Writes a block for each answer: on a terminal in colour and as wide as the window, elsewhere
/// plain. `engines` are the engines on this host that have port tables of their own.
///
/// # Errors
/// `out` cannot be written.
pub fn explanations(
    answers: &[Explanation],
    mut out: impl Write + AsFd,
    colour: ColorChoice,
    engines: &[Engine],
) -> io::Result<()> {
    let columns = columns(&out);
    for answer in answers {
        out.write_all(coloured(block(answer, columns, engines), colour).as_bytes())?;
    }
    out.flush()
}

/// Returns the blocks of all answers.
#[cfg(test)]
pub fn told(answers: &[Explanation]) -> String {
    answers.iter().map(|answer| block(answer, None, &[Engine::Docker])).collect()
}

/// Returns the block of one answer.
pub(super) fn block(answer: &Explanation, columns: Option<usize>, engines: &[Engine]) -> String {
    let mut out = Block { text: String::new(), columns };
    let Explanation { diagnosis, sockets, connections, .. } = answer;
    head(&mut out, answer);
    if let Some(diagnosis) = diagnosis {
        let label = match answer.outcome() {
            Outcome::Refused => "blocked by",
            _ => "may block",
        };
        out.blocking(label, diagnosis, sockets);
    } else {
        for socket in beside(sockets) {
            out.row("also here", &format!("not blocking: {}", held(socket)));
        }
    }
    if connections.established > 0 {
        let at_least = Gap::at_least(&answer.gaps, &Fact::Connections);
        let connected = format!("{at_least}{} established on this port", connections.established);
        out.row("connected", &connected);
    }
    out.around(&answer.time_wait, &answer.netns, &answer.gaps);
    if let Some(outcomes) = a_bind(answer) {
        out.row("a bind", outcomes);
    }
    let last = [&answer.last_holder, &answer.previous_holder].into_iter().flatten();
    if let Some(before) = last.into_iter().find_map(|last| before(last, answer.time)) {
        out.row("before", &before);
    }
    match diagnosis {
        Some(diagnosis) => out.what_to_do(diagnosis),
        None => notes(answer, engines).iter().for_each(|note| out.row("note", note)),
    }
    // A diagnosis without a cause lists the gaps among its notes.
    let are_told = matches!(&answer.diagnosis, Some(diagnosis) if diagnosis.tells_gaps());
    // That this namespace is assumed to be the host's does not matter here.
    let is_told = |gap: &Gap| are_told || gap.what == Fact::NetnsHost;
    for gap in answer.gaps.iter().filter(|gap| !is_told(gap)) {
        out.row("not known", &format!("{}: {}", gap.what, gap.why));
    }
    out.text.push('\n');
    out.text
}

fn head(out: &mut Block, answer: &Explanation) {
    let (style, word_of_it) = match answer.outcome() {
        Outcome::Passes => (FREE, "FREE"),
        Outcome::Unknown => (UNSURE, "NOT SURE"),
        Outcome::Refused => (HEAD, "HELD"),
    };
    let cause = match &answer.diagnosis {
        Some(diagnosis) => format!("  {}", diagnosis.cause),
        None => String::new(),
    };
    let time = answer.time.strftime("%Y-%m-%d %H:%M:%S UTC");
    let port = named(&answer.asked);
    let _ =
        writeln!(out.text, "{style}{word_of_it}{style:#}  {port}{cause}  {LABEL}{time}{LABEL:#}");
    let summary = match (&answer.diagnosis, answer.outcome()) {
        (Some(diagnosis), _) => diagnosis.summary.as_str(),
        (None, Outcome::Unknown) => "the sockets on the port could not be read",
        (None, _) => "no socket blocks a bind here",
    };
    for line in out.lines(summary, 2) {
        let _ = writeln!(out.text, "  {line}");
    }
}

/// Returns a text like `tcp port 8080` or `udp 127.0.0.1:53`.
pub fn named(asked: &Question) -> String {
    let protocol = asked.protocol;
    let on = |before: &str| match &asked.device {
        Some(Device { index, name: None }) => format!("{before}{index}"),
        Some(Device { name: Some(name), .. }) => format!("{before}{}", printable(name)),
        None => String::new(),
    };
    let port = asked.port;
    match asked.address {
        Some(IpAddr::V4(address)) => format!("{protocol} {address}{}:{port}", on("%")),
        Some(IpAddr::V6(address)) => format!("{protocol} [{address}{}]:{port}", on("%")),
        None => format!("{protocol} port {port}{}", on(" on ")),
    }
}

/// Returns the result of a bind, as text that follows the words "a bind", or `None` if it
/// succeeds in any case.
pub fn a_bind(answer: &Explanation) -> Option<&'static str> {
    use Outcome::{Passes, Refused, Unknown};
    Some(match (answer.bind.without_reuseaddr, answer.bind.with_reuseaddr) {
        (Passes, Passes) => return None,
        (Refused, Refused) => "fails with and without SO_REUSEADDR",
        (Refused, Passes) => "fails without SO_REUSEADDR, succeeds with it",
        (Refused, Unknown) => {
            "fails without SO_REUSEADDR; with it, it succeeds if the other sockets set it too, which \
             the kernel does not show"
        }
        _ if answer.diagnosis.is_none() => {
            "may fail or succeed: the sockets on the port could not be read"
        }
        _ => "may succeed: it depends on options of the other socket that the kernel does not show",
    })
}

/// Returns other sockets on the port: a few of those that will stay.
fn beside(sockets: &[Socket]) -> impl Iterator<Item = &Socket> {
    const MOST: usize = 4;
    let stays =
        |socket: &&Socket| matches!(socket.state, State::Listen | State::Bound | State::Unconn);
    sockets.iter().filter(stays).take(MOST)
}

fn held(socket: &Socket) -> String {
    match socket.holders.first() {
        Some(holder) => format!("{}: {}", words::socket(socket), process_line(holder)),
        None => words::socket(socket).to_string(),
    }
}

/// Returns the previous holder, and until when it had the port open.
fn before(last: &LastHolder, now: Timestamp) -> Option<String> {
    let left = last.left?;
    let ago = words::age(left, now).map(|age| format!(" ({age} ago)")).unwrap_or_default();
    let until = left.strftime("%Y-%m-%d %H:%M:%S");
    Some(format!("released {until}{ago} by {}", process_line(&last.process)))
}

/// Returns the notes about a free port.
fn notes(answer: &Explanation, engines: &[Engine]) -> Vec<String> {
    let mut notes = Vec::new();
    let port = answer.asked.port;
    if answer.outcome() != Outcome::Passes {
        return notes;
    }
    if let Some(range) = answer.ephemeral.as_ref().filter(|range| range.contains(port)) {
        notes.push(format!(
            "the kernel uses ports {} to {} for outgoing connections, so this one can be taken at any \
             time; net.ipv4.ip_local_reserved_ports reserves it",
            range.low, range.high
        ));
    }
    notes.extend(engines.iter().filter_map(|engine| {
        let spec = engine.spec();
        Some(format!(
            "if {} says \"{}\", that comes from its own table, not from the kernel: {}",
            spec.name,
            spec.taken?,
            spec.listing(port, answer.asked.protocol.into())
        ))
    }));
    notes
}
