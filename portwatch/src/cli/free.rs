//! `portwatch free`: takes ports back through whoever is responsible for what holds them, and
//! proves that they are free.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    error::{Failure, NetnsError, SystemError, ended},
    explain::{device, enricher, named_file},
    streams::{Stream, say},
    target::{Target, targets},
    wait::{INTERRUPTED, duration},
};
use crate::{
    advice::{Advised, FAILED, HELD, NOT_PERMITTED},
    agents,
    enrich::host::NetnsRef,
    event::{
        self,
        action::{Action, Result as Came},
    },
    evidence::Protocol,
    explain::Question,
    sinks::{self, human::coloured},
};

mod round;
mod words;

use round::Taking;

/// Examples.
const EXAMPLES: &str = "\
Examples:
  portwatch free 8080
      show who holds the port and the plan, ask, do it, wait, and prove that it is free
  portwatch free 8080 --dry-run
      show the plan only
  portwatch free 8080 --yes --timeout 30s && ./deploy
      in a script: do only what is probably safe, otherwise exit with 3 and say why
  portwatch free 8080 --yes --even-if-used
      also what somebody may be using; never what is judged not safe to stop
  portwatch free 8080 --yes --kill-after 10s
      send SIGKILL to processes that are still there 10 s after SIGTERM

free stops a unit, a container or a supervisor's job through its manager, and sends SIGTERM only
to processes that nobody manages. It sends SIGKILL only with --kill-after. Before each signal it
checks that the process is still the same and still has the socket open.

Exit codes: 0 free, 3 still held or refused, 1 a step failed, 2 bad usage, 4 not permitted,
130 interrupted.";

/// Options of `free`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Ports: 8080, 127.0.0.1:8080, [::1]:8080, 0.0.0.0:http, [fe80::1%eth0]:8080
    #[arg(required = true, value_name = "PORT|ADDR:PORT")]
    targets: Vec<String>,
    /// Show the plan, and do nothing
    #[arg(long, conflicts_with_all = ["yes", "kill_after"])]
    dry_run: bool,
    /// Do not ask: do what is probably safe, refuse the rest
    #[arg(long, short)]
    yes: bool,
    /// With --yes: also stop what others may be using
    #[arg(long, requires = "yes")]
    even_if_used: bool,
    /// Longest time until the ports are free: 30s, 2m, or a number of seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Send SIGKILL to processes that have not exited this long after SIGTERM
    #[arg(long, value_name = "TIME", value_parser = duration)]
    kill_after: Option<Duration>,
    /// The next program sets SO_REUSEADDR, and so did the previous one: connections that
    /// remain do not block it
    #[arg(long)]
    reuseaddr: bool,
    /// UDP instead of TCP
    #[arg(long)]
    udp: bool,
    /// Free a port in another network namespace: of a process, by name (ip-netns(8)), or by
    /// file
    #[arg(long, value_name = "PID|NAME|PATH")]
    netns: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Form::Human)]
    format: Form,
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// The evidence, the plan, and what came of it
    Human,
    /// A JSON object per port, one per line
    Json,
    /// A note per port, ready to paste: the evidence, and what was done
    Markdown,
}

/// Takes the ports back, one after the other.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let protocol = if args.udp { Protocol::Udp } else { Protocol::Tcp };
    let targets = targets(&args.targets, protocol)?;
    if let Some(place) = &args.netns {
        enter(place)?;
    }
    let mut enricher = enricher()?;
    let netns = enricher.enter(&NetnsRef::Own).map_err(NetnsError::Own)?;
    let mut questions = Vec::new();
    for target in &targets {
        let device = device(&enricher, &NetnsRef::Own, target)?;
        let &Target { address, port, .. } = target;
        let reuseaddr = args.reuseaddr;
        questions.push(Question { protocol, address, device, port, reuseaddr });
    }
    let mut taking = Taking::new(args, enricher, event::Host::unwatched(), netns)?;
    let ended = take_all(args, &mut taking, questions);
    taking.leave();
    ended
}

fn take_all(
    args: &Args,
    taking: &mut Taking<'_>,
    questions: Vec<Question>,
) -> Result<ExitCode, Failure> {
    let mut code = ExitCode::SUCCESS;
    for question in questions {
        let (action, denied) = taking.take(question)?;
        if action.result != Came::Planned && !action.result.is_free() {
            code = self::code(&action, denied);
        }
        report(&action);
        tell(args.format, &action)?;
        if action.result == Came::Interrupted {
            break;
        }
    }
    ended(code, Ok(()))
}

fn code(action: &Action, denied: bool) -> ExitCode {
    ExitCode::from(match action.result {
        _ if denied => NOT_PERMITTED,
        Came::AlreadyFree | Came::Freed | Came::Waited | Came::Planned => 0,
        Came::Failed => FAILED,
        Came::Interrupted => INTERRUPTED,
        Came::Refused | Came::Declined | Came::Taken | Came::TimedOut => HELD,
    })
}

/// Hands the record of it to the running agents, if something happened.
fn report(action: &Action) {
    if matches!(action.result, Came::Planned | Came::AlreadyFree) {
        return;
    }
    match agents::tell(action) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            say("portwatch: not in the agent's record of this machine: only root can add to it");
        }
        Err(error) => {
            say(format_args!("portwatch: not in the agent's record of this machine: {error}"));
        }
    }
}

/// Prints what came of one port.
fn tell(form: Form, action: &Action) -> Result<(), Failure> {
    let text = match form {
        Form::Human => coloured(words::result(action), Stream::Stdout.colour()),
        Form::Markdown => sinks::markdown::action(action),
        Form::Json => {
            let line = serde_json::to_string(action).map_err(SystemError::at("write JSON"))?;
            line + "\n"
        }
    };
    let written = Stream::Stdout.write_all(text.as_bytes());
    ended(ExitCode::SUCCESS, written).map(drop)
}

/// Moves this thread, which is the only one yet, into a network namespace.
fn enter(place: &str) -> Result<(), NetnsError> {
    let file: File = named_file(place)?;
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), network).map_err(|errno| NetnsError::Named {
        place: place.to_owned(),
        source: io::Error::from(errno),
    })
}

/// There is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask: stdin is not a terminal")]
struct NobodyToAsk;

impl Advised for NobodyToAsk {
    fn hint(&self) -> &'static str {
        "use --yes in a script, or --dry-run to see the plan"
    }

    fn exit_code(&self) -> u8 {
        crate::advice::USAGE
    }
}
