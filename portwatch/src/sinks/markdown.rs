//! The incident note: the evidence in the format of the usual tools, the diagnosis, and space
//! for the reader's own notes. Ready to paste.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use jiff::Timestamp;

use crate::{
    diagnose::{Diagnosis, Move, words},
    event::{Action, Event, Outcome, Record},
    evidence::{Fact, Gap, Process, Protocol, Socket, State, SupervisorKind, TimeWait},
    sinks::{Sink, became::sentence, deed, human::command_line},
    text::sanitize::printable,
};

mod action;
mod explanation;
mod prose;

pub use action::action;
pub use explanation::explanations;
pub use prose::prose;

/// Writes a note for each event.
pub struct Markdown<W> {
    out: W,
}

impl<W: Write + Send> Markdown<W> {
    /// Creates a sink that writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Sink for Markdown<W> {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = match record {
            Record::BindFailure(event) => note(event),
            Record::Loss(loss) => {
                format!("> {} records were lost ({}).\n\n", loss.count, prose(&loss.place))
            }
            Record::Outcome(outcome) => line(outcome),
            Record::Action(action) => deed(action),
            Record::Agent(_) => return Ok(()),
        };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// Returns the outcome of an event's failed bind, as a quotation.
pub fn line(outcome: &Outcome) -> String {
    format!("> Outcome: {}.\n\n", prose(&sentence(outcome)))
}

/// Returns what `portwatch free` did, as a quotation.
pub fn deed(action: &Action) -> String {
    format!("> {}.\n\n", prose(&deed::sentence(action)))
}

/// Returns the note about one event.
pub fn note(event: &Event) -> String {
    let Event { failure, process, sockets, diagnosis, .. } = event;
    let target = std::net::SocketAddr::new(failure.address, failure.port);
    let mut note = Note::default();
    let _ = writeln!(
        note.0,
        "## {}: {} {target} on {}\n",
        prose(&failure.errno),
        failure.protocol,
        prose(&event.host.hostname)
    );
    note.facts(event);
    note.section("Who failed");
    note.block(&ps([process].into_iter()));
    note.section("What was on the port");
    note.block(&ss(failure.protocol, failure.port, sockets));
    for refused in &diagnosis.refused_by {
        note.item(&format!("{}: {}", refused.socket, refused.rule));
    }
    note.holders(diagnosis, sockets);
    note.time_wait(&event.time_wait, &event.gaps);
    note.what_to_do(diagnosis);
    note.gaps(&event.gaps);
    note.section("What was done");
    note.0.push_str("- action, and the signal used:\n- TIME-WAIT afterwards:\n\n");
    note.0
}

#[derive(Default)]
struct Note(String);

impl Note {
    fn section(&mut self, title: &str) {
        if !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
        let _ = writeln!(self.0, "### {title}\n");
    }

    fn item(&mut self, text: &str) {
        let _ = writeln!(self.0, "- {}", prose(text));
    }

    /// Adds text as a terminal shows it. The fence is longer than any fence in the text.
    fn block(&mut self, text: &str) {
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        let _ = writeln!(self.0, "{fence}text\n{}\n{fence}\n", text.trim_end());
    }

    fn facts(&mut self, event: &Event) {
        let Event { time, count, host, diagnosis, netns, .. } = event;
        self.item(&diagnosis.summary);
        self.item(&format!(
            "cause {}, {}; kernel {}",
            diagnosis.cause, diagnosis.confidence, host.kernel
        ));
        match (*count, event.first_seen, event.last_seen) {
            (2.., Some(first), Some(last)) => {
                self.item(&format!("{count} times, from {} to {}", moment(first), moment(last)));
            }
            _ => self.item(&format!("at {}", moment(*time))),
        }
        if netns.host == Some(false) {
            let name = netns.name.as_deref().unwrap_or("it has no name");
            self.item(&format!("in a network namespace other than the host's: {name}"));
        }
    }

    /// Adds the processes that have the blocking socket open.
    fn holders(&mut self, diagnosis: &Diagnosis, sockets: &[Socket]) {
        const MOST: usize = 5;
        let pid = diagnosis.holder.as_ref().and_then(|holder| holder.pid);
        let all = || sockets.iter().flat_map(|socket| &socket.holders);
        let mut shown: Vec<&Process> = all().filter(|process| Some(process.pid) == pid).collect();
        shown.extend(all());
        let mut seen = std::collections::BTreeSet::new();
        shown.retain(|process| seen.insert(process.pid));
        shown.truncate(MOST);
        let Some(first) = shown.first() else { return };
        self.section("Who holds it");
        self.block(&ps(shown.iter().copied()));
        if let Some(holder) = &diagnosis.holder {
            self.item(&format!("{}, process {}", holder.class, first.pid));
        }
        self.ownership(first);
    }

    fn ownership(&mut self, process: &Process) {
        let path = process.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        if let Some(path) = path {
            self.block(&format!("$ cat /proc/{}/cgroup\n0::{}", process.pid, printable(path)));
        }
        let places = [
            ("unit", &process.unit),
            ("container", &process.container),
            ("pod", &process.pod),
            ("session", &process.session),
            ("terminal", &process.tty),
        ];
        for (what, name) in places {
            if let Some(name) = name {
                self.item(&format!("{what} {name}"));
            }
        }
        if let Some(by) = &process.supervisor {
            let name = by.name.as_deref().unwrap_or("without a name");
            let restart =
                by.restart.as_ref().map(|to| format!(", Restart={to}")).unwrap_or_default();
            // A shell was only seen to run it, and a unit may end with it.
            let how = match (by.kind, by.restart.as_deref()) {
                (SupervisorKind::Shell, _) => "run by",
                (SupervisorKind::Systemd, None | Some("no")) => "managed by",
                _ => "restarted by",
            };
            self.item(&format!("{how} {} ({name}{restart})", by.kind));
        }
    }

    fn time_wait(&mut self, rows: &TimeWait, gaps: &[Gap]) {
        self.section("TIME-WAIT");
        let at_least = Gap::at_least(gaps, &Fact::TimeWait);
        let left = rows.max_remaining_ms.map(|ms| ms.div_ceil(1000));
        let left = left.map(|s| format!(", {at_least}{s} s left")).unwrap_or_default();
        let unlisted = gaps.iter().any(|gap| gap.what.is_the_listing());
        match rows.count {
            0 if unlisted => self.item("none seen; not all sockets were listed"),
            0 => self.item("none on this port"),
            count => self.item(&format!("{at_least}{count} on this port{left}")),
        }
        if let Some(by) = &rows.left_by {
            let program = by.program.as_deref().or(by.unit.as_deref()).unwrap_or("a process");
            self.item(&format!("left by {program}[{}]", by.pid));
        }
    }

    fn what_to_do(&mut self, diagnosis: &Diagnosis) {
        self.section("What to do");
        for step in &diagnosis.moves {
            self.step(step);
        }
        for text in &diagnosis.notes {
            self.item(text);
        }
    }

    fn gaps(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            self.item(&format!("not known: {}: {}", gap.what, gap.why));
        }
    }

    fn step(&mut self, step: &Move) {
        let _ = writeln!(self.0, "- {} (risk: {})", prose(&step.why), step.risk);
        if let Some(command) = &step.command {
            self.0.push('\n');
            self.block(&format!("$ {}", printable(command)));
        }
    }
}

/// Returns lines as `ss -tanp` prints them, without the queues, which events do not contain.
fn ss(protocol: Protocol, port: u16, sockets: &[Socket]) -> String {
    const MOST: usize = 8;
    let mut text = format!("$ {}\n", words::listing(protocol, port));
    let _ = writeln!(text, "{:<11} {:<22} {:<22} Process", "State", "Local", "Peer");
    let listening_first =
        |socket: &&Socket| (socket.refused != Some(true), socket.state != State::Listen);
    let mut rows: Vec<_> = sockets.iter().collect();
    rows.sort_by_key(listening_first);
    for socket in rows.iter().take(MOST) {
        let peer = socket.remote.map_or_else(
            || if socket.local.is_ipv4() { "0.0.0.0:*" } else { "[::]:*" }.to_owned(),
            |remote| remote.to_string(),
        );
        let holders: Vec<_> = socket
            .holders
            .iter()
            .map(|holder| {
                let comm = printable(holder.comm.as_deref().unwrap_or_default()).into_owned();
                let fd = holder.fd.map(|fd| format!(",fd={fd}")).unwrap_or_default();
                format!("(\"{comm}\",pid={}{fd})", holder.pid)
            })
            .collect();
        let users = match holders.len() {
            0 => String::new(),
            _ => format!("users:({})", holders.join(",")),
        };
        let local = socket.local.to_string();
        let _ = writeln!(text, "{:<11} {local:<22} {peer:<22} {users}", socket.state);
    }
    match sockets.len().saturating_sub(MOST) {
        0 => text,
        more => format!("{text}… and {more} more\n"),
    }
}

/// Returns lines as `ps -o pid,ppid,user,lstart,cmd` prints them.
fn ps<'a>(processes: impl Iterator<Item = &'a Process> + Clone) -> String {
    let pids: Vec<_> = processes.clone().map(|process| process.pid.to_string()).collect();
    let mut text = format!("$ ps -o pid,ppid,user,lstart,cmd -p {}\n", pids.join(","));
    let _ = writeln!(text, "{:>7} {:>7} {:<8} {:<24} CMD", "PID", "PPID", "USER", "STARTED");
    for process in processes {
        let number = |number: Option<u32>| number.map_or("?".to_owned(), |n| n.to_string());
        let user = process.user.clone().unwrap_or_else(|| number(process.uid));
        let started = process
            .started
            .map_or("?".to_owned(), |at| at.strftime("%a %b %e %H:%M:%S %Y").to_string());
        let command = match process.cmdline.is_empty() {
            true => format!("[{}]", process.comm.as_deref().unwrap_or("?")),
            false => command_line(process),
        };
        let _ = writeln!(
            text,
            "{:>7} {:>7} {:<8} {started:<24} {}",
            process.pid,
            number(process.ppid),
            printable(&user),
            printable(&command)
        );
    }
    text
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::read;

    fn event() -> Event {
        let line = include_str!("../../../tests/golden/listener.jsonl");
        let Ok(Record::BindFailure(event)) = read::record(line.trim_end()) else { panic!() };
        *event
    }

    #[test]
    fn the_note_has_the_evidence() {
        insta::assert_snapshot!(note(&event()));
    }

    #[test]
    fn nothing_that_a_process_says_is_markup() {
        let mut event = event();
        event.process.cmdline = vec!["x".to_owned(), "````\n</details><b>".to_owned()].into();
        event.diagnosis.summary = "*a* <b> [c](d) | `e`".to_owned();
        let note = note(&event);
        assert!(note.contains("\\*a\\* \\<b\\> \\[c\\](d) \\| \\`e\\`"), "{note}");
        let fence = note.lines().find(|line| line.starts_with("`````")).unwrap();
        assert!(fence.trim_end_matches("text").len() > 4, "{note}");
    }
}
