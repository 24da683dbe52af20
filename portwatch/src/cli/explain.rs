//! `portwatch explain`: shows what would block a bind right now.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use super::{
    error::{Failure, NetnsError, SystemError, ended},
    settings,
    streams::{Stream, say},
    target::{self, Target},
};
use crate::{
    enrich::{
        Enricher,
        host::{Host, NetnsRef},
    },
    event,
    evidence::{Device, Engine, Protocol},
    explain::{Explanation, Outcome, Question, explain},
    kernel::{files::Soon, records},
    sinks,
};

/// Time limit for one port in one namespace.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most network namespaces that are searched. Each is an open file, and by default a
/// process may have 1,024 open files.
const MOST_NETNS: usize = 512;

/// Examples.
const EXAMPLES: &str = "\
Examples:
  portwatch explain 8080
      what blocks a bind of 0.0.0.0:8080 or [::]:8080, whose socket it is, and what to do
  portwatch explain 127.0.0.1:8080 [::1]:http --reuseaddr
      on these addresses, for a program that sets SO_REUSEADDR
  portwatch explain 8080 --netns all
      in every network namespace, including those of containers
  portwatch explain 53 --udp --format json | jq .diagnosis.holder
  portwatch explain 8080 && ./server
      start the server only if nothing blocks the bind

explain binds nothing: it applies the kernel's conflict rules to the existing sockets. The
previous holder comes from a running portwatch run, if there is one. Without root: every
socket is visible, owners only for your own processes.

Exit codes: 0 free, 3 held, 1 not sure or the tool failed, 2 bad usage,
4 not permitted (--netns).";

/// Options of `explain`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Ports: 8080, 127.0.0.1:8080, [::1]:8080, 0.0.0.0:http, [fe80::1%eth0]:8080
    #[arg(required = true, value_name = "PORT|ADDR:PORT")]
    targets: Vec<String>,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// The binding program sets SO_REUSEADDR
    #[arg(long)]
    reuseaddr: bool,
    /// Explain a bind in another network namespace: of a process, by name (ip-netns(8)),
    /// by file; or in all of them
    #[arg(long, value_name = "PID|NAME|PATH|all")]
    netns: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Form::Human)]
    format: Form,
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A block of text per port
    Human,
    /// One JSON object per line (portwatch schema describes them)
    Json,
    /// A note per port, ready to paste
    Markdown,
}

/// Collects the answers, prints them, and exits with 3 if a bind is blocked.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let protocol = if args.udp { Protocol::Udp } else { Protocol::Tcp };
    let targets = target::targets(&args.targets, protocol)?;
    let mut enricher = enricher()?;
    let everywhere = args.netns.as_deref() == Some("all");
    let places = match args.netns.as_deref() {
        None => vec![NetnsRef::Own],
        Some("all") => {
            let (places, complete) = enricher.all_netns(MOST_NETNS);
            if !complete {
                say("portwatch: not permitted to enter all network namespaces: run it as root");
            }
            places
        }
        Some(place) => vec![NetnsRef::Other(named_file(place)?)],
    };
    let host = event::Host::unwatched();
    let mut answers = Vec::new();
    let mut without = None;
    for place in &places {
        let netns = match enricher.enter(place) {
            Ok(netns) => netns,
            // A namespace may have been removed in the meantime.
            Err(error) if everywhere => {
                say(format_args!("portwatch: cannot enter a network namespace: {error}"));
                continue;
            }
            Err(error) => {
                return Err(match args.netns.clone() {
                    Some(place) => NetnsError::Named { place, source: error }.into(),
                    None => NetnsError::Own(error).into(),
                });
            }
        };
        for target in &targets {
            let device = match device(&enricher, place, target) {
                Ok(device) => device,
                // Many namespaces do not contain an interface with that name.
                Err(error) if everywhere => {
                    without = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let &Target { address, port, .. } = target;
            let asked = Question { protocol, address, device, port, reuseaddr: args.reuseaddr };
            answers.push(explain(&mut enricher, &host, asked, &netns, PATIENCE));
        }
    }
    if let Some(error) = without.filter(|_| answers.is_empty()) {
        return Err(error);
    }
    if everywhere {
        leave_out_nothing_to_say(&mut answers);
    }
    ended(code(&answers), tell(args.format, &answers, &enricher.engines_with_tables()))
}

/// Opens an enricher that uses the owner record of a running agent, if there is one.
pub fn enricher() -> Result<Enricher, Failure> {
    let redaction = settings::redaction()?;
    let files = Box::new(Soon::begin());
    let mut enricher = Enricher::new(Host::current(), records::of_running_agent(), files);
    enricher.redact_by(redaction);
    Ok(enricher)
}

/// Returns the interface that a target names, in its namespace.
pub fn device(
    enricher: &Enricher,
    place: &NetnsRef,
    target: &Target,
) -> Result<Option<Device>, Failure> {
    let Some(interface) = &target.interface else { return Ok(None) };
    let socket = enricher.socket(place).map_err(SystemError::at("list the network interfaces"))?;
    Ok(Some(interface.find(&*socket)?))
}

/// Keeps the answers for namespaces in which a port is in use, and for each port the first
/// answer, which is that of the agent's own namespace.
fn leave_out_nothing_to_say(answers: &mut Vec<Explanation>) {
    let mut told = Vec::new();
    answers.retain(|answer| {
        let is_first = !told.contains(&answer.asked);
        told.push(answer.asked.clone());
        is_first || !answer.sockets.is_empty() || answer.outcome() != Outcome::Passes
    });
}

fn tell(form: Form, answers: &[Explanation], engines: &[Engine]) -> io::Result<()> {
    let mut stdout = Stream::Stdout;
    match form {
        Form::Json => answers.iter().try_for_each(|answer| {
            let line = serde_json::to_string(answer)? + "\n";
            stdout.write_all(line.as_bytes())
        }),
        Form::Human => sinks::human::explanations(answers, stdout, stdout.colour(), engines),
        Form::Markdown => sinks::markdown::explanations(answers, &mut stdout),
    }
}

/// Returns the exit code. A blocked bind takes precedence over an unknown result.
fn code(answers: &[Explanation]) -> ExitCode {
    match answers.iter().map(Explanation::outcome).max() {
        Some(Outcome::Refused) => ExitCode::from(3),
        Some(Outcome::Unknown) => ExitCode::from(1),
        Some(Outcome::Passes) | None => ExitCode::SUCCESS,
    }
}

/// Opens the namespace of a process, by its pid, or a namespace by its name or file.
pub fn named_file(place: &str) -> Result<File, NetnsError> {
    let path = if place.bytes().all(|byte| byte.is_ascii_digit()) {
        PathBuf::from("/proc").join(place).join("ns/net")
    } else if place.contains('/') {
        PathBuf::from(place)
    } else {
        PathBuf::from("/run/netns").join(place)
    };
    // Opening a FIFO would block.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    file.map_err(|source| NetnsError::Named { place: place.to_owned(), source })
}
