//! `portwatch wait`: blocks a script until ports are free, or until a socket is listening on
//! them.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

use super::{
    error::{Failure, SystemError, ended},
    streams::Stream,
    target::{Interface, Target, targets},
};
use crate::{
    advice::HELD,
    enrich::host::{Host, NetnsRef},
    evidence::{Device, Protocol},
    explain::Question,
    sinks::human::coloured,
    text::sanitize::printable,
    values::ValueError,
    wait::{self, Port, State, look::Asked},
};

mod line;
pub mod progress;

use line::Line;
use progress::Progress;

/// Options of `wait`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("condition").required(true).args(["free", "listening"])))]
pub struct Args {
    /// A port, or an address and a port: 8080, 127.0.0.1:8080, [::1]:8080, 0.0.0.0:http,
    /// [fe80::1%eth0]:8080; several ports must meet the condition at the same time
    #[arg(value_name = "PORT|ADDR:PORT", required = true)]
    targets: Vec<String>,
    /// Wait until a bind would succeed: on the address, or for a port alone on all IPv4
    /// and IPv6 addresses
    #[arg(long)]
    free: bool,
    /// Wait until a socket is listening (UDP: bound) on the address, or on one that
    /// covers it
    #[arg(long)]
    listening: bool,
    /// Longest wait: 30s, 2m, or a number of seconds; 0 checks once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// The bind will set SO_REUSEADDR, and so did the previous program: its
    /// connections, including those in TIME-WAIT, do not block the bind
    #[arg(long, conflicts_with = "listening")]
    reuseaddr: bool,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A line of text per port
    Human,
    /// A JSON object per port, one per line
    Json,
}

const EXAMPLES: &str = "\
Examples:
  portwatch wait 8080 --free && ./server
      start as soon as nothing blocks a bind, not even TIME-WAIT
  portwatch wait 8080 --free --reuseaddr --timeout 2m
      the same for a server that sets SO_REUSEADDR, as most do
  portwatch wait 127.0.0.1:5432 [::1]:6379 --listening --timeout 10s
      wait until both services are up
  portwatch wait 8080 --free --timeout 0 --format json
      check once

wait needs no root. It watches the network namespace in which it runs. Progress goes to
stderr, the result to stdout.

Exit codes: 0 condition met, 3 timed out, 1 the tool failed, 2 bad usage,
130 interrupted.";

/// Waits, and then prints the result.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let host = Host::current();
    let asked = args.asked(&host)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SystemError::at("start the runtime"))?;
    // This comes before any output, so that a reader of the output can interrupt the program at
    // once.
    let mut interrupt = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt()).map_err(SystemError::at("watch for SIGINT"))?
    };
    let mut progress = Progress::new(args.timeout);
    let end = runtime.block_on(async {
        tokio::select! {
            ended = wait::wait(&host, &asked, args.timeout, |state| progress.tell(state)) => {
                Ok::<_, Failure>(Some(ended?))
            }
            _ = interrupt.recv() => Ok(None),
        }
    });
    progress.end(end.as_ref().ok().and_then(Option::as_ref));
    let Some(state) = end? else { return Ok(ExitCode::from(INTERRUPTED)) };
    let code = if state.is_met() { ExitCode::SUCCESS } else { ExitCode::from(HELD) };
    let text = match args.text(&state, &host) {
        Ok(text) => text,
        Err(error) => return ended(code, Err(error)),
    };
    // A signal handler for SIGINT is installed, so SIGINT does not end a blocked write to a
    // terminal.
    let written = runtime.block_on(async {
        let write = move || Stream::Stdout.write_all(text.as_bytes());
        tokio::select! {
            written = spawn_blocking(write) => Some(written.map_err(io::Error::other).flatten()),
            _ = interrupt.recv() => None,
        }
    });
    runtime.shutdown_background();
    match written {
        Some(written) => ended(code, written),
        None => Ok(ExitCode::from(INTERRUPTED)),
    }
}

/// The exit code by the convention of shells: 128 plus the signal's number.
pub const INTERRUPTED: u8 = 130;

impl Args {
    fn asked(&self, host: &Host) -> Result<Vec<Asked>, Failure> {
        let protocol = if self.udp { Protocol::Udp } else { Protocol::Tcp };
        let targets = targets(&self.targets, protocol)?;
        let asked = |Target { address, interface, port }| {
            let device = match interface {
                Some(interface) => {
                    let socket = host
                        .sock_diag(&NetnsRef::Own)
                        .map_err(SystemError::at("list the network interfaces"))?;
                    Some(interface.find(&*socket)?)
                }
                None => None,
            };
            let at = Question { protocol, address, device, port, reuseaddr: self.reuseaddr };
            Ok(if self.listening { Asked::Listening(at) } else { Asked::Free(at) })
        };
        targets.into_iter().map(asked).collect()
    }

    fn text(&self, state: &State, host: &Host) -> io::Result<String> {
        let mut text = Vec::new();
        for port in &state.ports {
            let line = Line::of(port, state, host);
            match self.format {
                Format::Human => human(port, &line, &mut text)?,
                Format::Json => {
                    serde_json::to_writer(&mut text, &line)?;
                    text.push(b'\n');
                }
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(coloured(text, Stream::Stdout.colour()))
    }
}

/// A shorter wait is not printed.
const WORTH_TELLING: Duration = Duration::from_millis(50);
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Prints a line like `tcp *:8080 is held after 3.2 s: LISTEN 0.0.0.0:8080 (inode 7)`.
fn human(port: &Port, line: &Line, out: &mut impl Write) -> io::Result<()> {
    let style = if port.standing.met { GOOD } else { BAD };
    write!(out, "{} {style}{}{style:#}", name(port), verdict(port))?;
    let waited = Duration::from_millis(line.waited_ms);
    if waited >= WORTH_TELLING {
        write!(out, " after {}", seconds(waited))?;
    }
    match port.standing.words() {
        Some(sockets) => writeln!(out, ": {}", printable(&sockets))?,
        None => writeln!(out)?,
    }
    line.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
}

/// Returns a text like `tcp *:8080`.
fn name(Port { asked, .. }: &Port) -> String {
    let (address, device) = asked.place();
    let interface = device
        .cloned()
        .map(|Device { index, name }| name.map_or(Interface::Index(index), Interface::Name));
    format!("{} {}", asked.protocol(), Target { address, interface, port: asked.port() })
}

fn verdict(port: &Port) -> &'static str {
    match (port.asked.is_free(), port.standing.met) {
        (true, true) => "is free",
        (true, false) => "is held",
        (false, true) if port.asked.is_tcp() => "is listening",
        (false, true) => "is bound",
        (false, false) => "has no listener",
    }
}

/// Returns a text like `3.2 s`.
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Parses a duration like other options, or whole seconds like sleep(1).
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    Duration::try_from(text.parse::<jiff::SignedDuration>()?).map_err(|_| ValueError::Negative)
}
