//! A short block for an engineer to act on: what failed, which process has the port open, what
//! to do.

use std::{
    fmt::Write as _,
    io::{self, Write},
    os::fd::AsFd,
};

use anstream::{ColorChoice, adapter::strip_str};
use anstyle::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;
use textwrap::{Options, WordSeparator, WordSplitter, wrap};

use crate::{
    diagnose::{Diagnosis, HolderClass, Judgement, Move, SafeToStop, words},
    event::{Action, Event, Loss, Outcome, Record},
    evidence::{Fact, Gap, Netns, Process, Socket, TimeWait},
    sinks::{Sink, became::sentence, deed},
    text::sanitize::printable,
};

mod explanation;

#[cfg(test)]
pub(crate) use explanation::told;
pub use explanation::{a_bind, explanations, named};

const HEAD: Style = AnsiColor::Red.on_default().bold();
const LABEL: Style = Style::new().dimmed();
const COMMAND: Style = AnsiColor::Green.on_default().bold();

/// The number of columns before the text of a line.
const INDENT: usize = 14;
/// Narrower terminals wrap lines themselves. On wider terminals lines are not longer than this,
/// because long lines are hard to read.
const COLUMNS: std::ops::RangeInclusive<usize> = 40..=120;

/// Writes blocks of text: on a terminal in colour and as wide as the window, elsewhere without
/// colours and with lines of any length.
pub struct Human<W> {
    out: W,
    colour: ColorChoice,
}

impl<W: Write + AsFd + Send> Human<W> {
    /// Creates a sink that writes to `out`, with colours unless `colour` is `Never`.
    pub fn new(out: W, colour: ColorChoice) -> Self {
        Self { out, colour }
    }
}

impl<W: Write + AsFd + Send> Sink for Human<W> {
    /// Writes the block with one write, so that a terminal shows nothing else between its lines.
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = match record {
            Record::BindFailure(event) => block(event, columns(&self.out)),
            Record::Loss(loss) => lost(loss),
            Record::Outcome(outcome) => line(outcome, self.colour),
            Record::Action(action) => deed(action),
            // The user who started the agent at a terminal knows this already.
            Record::Agent(_) => return Ok(()),
        };
        self.out.write_all(coloured(text, self.colour).as_bytes())?;
        self.out.flush()
    }
}

/// Returns the text with its colours, or without them if there must be none.
pub fn coloured(text: String, colour: ColorChoice) -> String {
    match colour {
        ColorChoice::Never => strip_str(&text).to_string(),
        _ => text,
    }
}

/// Returns the width of a terminal (tty_ioctl(4)), or `None` if it is not a terminal.
fn columns(out: impl AsFd) -> Option<usize> {
    let columns = usize::from(tcgetwinsize(out).ok()?.ws_col);
    (columns >= *COLUMNS.start()).then(|| columns.min(*COLUMNS.end()))
}

/// Returns the block of one event, with colours, in lines of this many columns, or of any
/// length for `None`.
pub fn block(event: &Event, columns: Option<usize>) -> String {
    let mut out = Block { text: String::new(), columns };
    out.head(event);
    out.row("failed", &process_line(&event.process));
    out.blocking("blocked by", &event.diagnosis, &event.sockets);
    out.around(&event.time_wait, &event.netns, &event.gaps);
    out.what_to_do(&event.diagnosis);
    out.unidentified(&event.diagnosis, &event.gaps);
    out.text.push('\n');
    out.text
}

struct Block {
    text: String,
    columns: Option<usize>,
}

impl Block {
    fn head(&mut self, event: &Event) {
        let time = event.time.strftime("%Y-%m-%d %H:%M:%S UTC");
        let cause = event.diagnosis.cause;
        let errno = printable(&event.failure.errno);
        let many = if event.count > 1 { format!(" ×{}", event.count) } else { String::new() };
        let _ = writeln!(self.text, "{HEAD}{errno}{HEAD:#}{many}  {cause}  {LABEL}{time}{LABEL:#}");
        for line in self.lines(&event.diagnosis.summary, 2) {
            let _ = writeln!(self.text, "  {line}");
        }
    }

    /// Adds the blocking socket, and the processes that have it open.
    fn blocking(&mut self, label: &str, diagnosis: &Diagnosis, sockets: &[Socket]) {
        let Diagnosis { refused_by, holder, .. } = diagnosis;
        for refused in refused_by {
            self.row(label, &format!("{}: {}", refused.socket, refused.rule));
        }
        let holding = holder.as_ref().and_then(|holder| {
            let mut holders = sockets.iter().flat_map(|socket| &socket.holders);
            holders.find(|process| Some(process.pid) == holder.pid && process.fd == holder.fd)
        });
        if let (Some(process), Some(holder)) = (holding, holder) {
            let class = holder.class.to_string().replace('_', " ");
            self.row("held by", &format!("{class}: {}", process_line(process)));
        }
    }

    fn around(&mut self, time_wait: &TimeWait, netns: &Netns, gaps: &[Gap]) {
        if time_wait.count > 0 {
            let at_least = Gap::at_least(gaps, &Fact::TimeWait);
            let left = time_wait
                .max_remaining_ms
                .map(|ms| format!(", the last ends in {at_least}{} s", ms.div_ceil(1000)))
                .unwrap_or_default();
            self.row("TIME-WAIT", &format!("{at_least}{} on this port{left}", time_wait.count));
        }
        if netns.host == Some(false) {
            let name = netns.name.as_deref().map(|name| format!("{name}, ")).unwrap_or_default();
            let inode = netns.inode.map_or("unknown".to_owned(), |inode| inode.to_string());
            self.row("netns", &format!("{name}inode {inode}"));
        }
    }

    fn what_to_do(&mut self, diagnosis: &Diagnosis) {
        let Diagnosis { judgement, moves, notes, .. } = diagnosis;
        if let Some(judgement) = judgement {
            self.row("stop it?", &verdict(judgement));
        }
        for (index, step) in moves.iter().enumerate() {
            self.step(if index == 0 { "do" } else { "also" }, step);
        }
        for note in notes {
            self.row("note", note);
        }
    }

    /// Adds why the holder is unknown, where the notes do not say it.
    fn unidentified(&mut self, diagnosis: &Diagnosis, gaps: &[Gap]) {
        let class = diagnosis.holder.as_ref().map(|holder| holder.class);
        if class != Some(HolderClass::Unknown) || diagnosis.tells_gaps() {
            return;
        }
        for gap in gaps.iter().filter(|gap| matches!(gap.what, Fact::Holders | Fact::Unheld)) {
            self.row("not known", &format!("{}: {}", gap.what, gap.why));
        }
    }

    fn row(&mut self, label: &str, text: &str) {
        let mut label = match label {
            "" => " ".repeat(INDENT),
            label => format!("  {LABEL}{label:<10}{LABEL:#}  "),
        };
        for line in self.lines(text, INDENT) {
            let _ = writeln!(self.text, "{label}{line}");
            label = " ".repeat(INDENT);
        }
    }

    fn step(&mut self, label: &str, step: &Move) {
        match &step.command {
            Some(command) => {
                // The command is on one line, however long it is, because it is meant to be
                // pasted.
                let command = printable(command);
                let _ = writeln!(
                    self.text,
                    "  {LABEL}{label:<10}{LABEL:#}  {COMMAND}{command}{COMMAND:#}"
                );
                self.row("", &step.why);
            }
            None => self.row(label, &step.why),
        }
    }

    /// Returns the text in lines that fit after `indent` columns. Words are not broken, because
    /// paths and addresses are meant to be copied.
    fn lines(&self, text: &str, indent: usize) -> Vec<String> {
        let text = printable(text).into_owned();
        let Some(columns) = self.columns else { return vec![text] };
        let options = Options::new(columns.saturating_sub(indent))
            .break_words(false)
            .word_separator(WordSeparator::AsciiSpace)
            .word_splitter(WordSplitter::NoHyphenation);
        wrap(&text, options).into_iter().map(Into::into).collect()
    }
}

/// Returns the answer with its reasons. The reasons against it come last.
fn verdict(judgement: &Judgement) -> String {
    let Judgement { safe_to_stop, pro, contra } = judgement;
    let answer = match safe_to_stop {
        SafeToStop::Likely => "probably safe",
        SafeToStop::Check => "look first",
        SafeToStop::No => "no",
    };
    let but = if contra.is_empty() || pro.is_empty() { "" } else { "; but " };
    let reasons = format!("{}{but}{}", pro.join("; "), contra.join("; "));
    if reasons.is_empty() { answer.to_owned() } else { format!("{answer}: {reasons}") }
}

/// Returns a text like `java[31550] fd 89, user deploy, up since …: java -jar …`.
fn process_line(process: &Process) -> String {
    let mut text = process.comm.clone().unwrap_or_default();
    let _ = write!(text, "[{}]", process.pid);
    if let Some(fd) = process.fd {
        let _ = write!(text, " fd {fd}");
    }
    if let Some(user) = &process.user {
        let _ = write!(text, ", user {user}");
    }
    // A session's scope is a unit too, but users know it as the session.
    let unit = process.unit.clone().filter(|_| process.session.is_none());
    // The process's own container. The summary names the container that a proxy serves.
    let container = process.container.as_ref().map(|id| {
        let known = process.workload.as_ref();
        words::short_id(known.and_then(|workload| workload.name.as_ref()).unwrap_or(id)).to_owned()
    });
    let places = [
        ("", &unit),
        ("container ", &container),
        ("session ", &process.session),
        ("tty ", &process.tty),
    ];
    for (what, name) in places {
        if let Some(name) = name {
            let _ = write!(text, ", {what}{name}");
        }
    }
    if let Some(started) = process.started {
        let _ = write!(text, ", since {}", started.strftime("%Y-%m-%d %H:%M:%S"));
    }
    if !process.cmdline.is_empty() {
        let _ = write!(text, ": {}", shortened(&command_line(process)));
    }
    text
}

/// Returns the arguments as a user would type them.
pub(super) fn command_line(process: &Process) -> String {
    let arguments: Vec<_> = process.cmdline.iter().map(|argument| argument.trim_end()).collect();
    match arguments.as_slice() {
        // A program that has written its own title has all of it in one argument.
        [title] => (*title).to_owned(),
        several => shlex::try_join(several.iter().copied()).unwrap_or_else(|_| several.join(" ")),
    }
}

/// Returns the beginning of a command line. The JSON output contains all of it.
fn shortened(text: &str) -> String {
    const MOST: usize = 160;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Returns the outcome of an event's failed bind, in one line.
pub fn line(outcome: &Outcome, colour: ColorChoice) -> String {
    coloured(format!("{LABEL}outcome:{LABEL:#} {}\n\n", printable(&sentence(outcome))), colour)
}

/// Returns what `portwatch free` did, in one line.
pub fn deed(action: &Action) -> String {
    format!("{LABEL}free:{LABEL:#} {}\n\n", printable(&deed::sentence(action)))
}

fn lost(loss: &Loss) -> String {
    format!("{HEAD}lost{HEAD:#} {} records ({})\n\n", loss.count, printable(&loss.place))
}

#[cfg(test)]
mod tests;
