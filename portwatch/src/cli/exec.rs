//! `portwatch exec`: runs a command, and explains its failed binds.

use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Duration};

use jiff::SignedDuration;
use rustix::process::{Resource, Rlimit, getpid, getrlimit, set_child_subreaper};

use super::{
    error::{Failure, SystemError, UsageError},
    hooks::Hooks,
    settings,
    streams::{Stream, say},
};
use crate::{
    config::filter::Filter,
    diagnose::words,
    enrich::{self, host::Host},
    exec::{
        child::{Child, End},
        refused::Refused,
        signals::Signals,
    },
    kernel::{
        attach::Follow,
        tally::{NOT_ATTEMPTED, Tally},
    },
    metrics::Metrics,
    pipeline::{self, Agent, Tuning},
    redact::Redaction,
    sinks::{self, Placed, Table},
    talk,
    wait::{self, look::Asked},
    watch::{self, Watch},
};

/// Options of `exec`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// If the command fails and could not bind ports: wait up to this time until they are
    /// free, then start it once more
    #[arg(long, value_name = "TIME")]
    wait_free: Option<SignedDuration>,
    /// Output format on stderr
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    #[command(flatten)]
    hooks: Hooks,
    /// The command and its arguments; put -- before a command that begins with a dash
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A block of text per event
    Human,
    /// One JSON object per line
    Json,
}

const EXAMPLES: &str = "\
Examples:
  portwatch exec -- nginx -g 'daemon off;'
      explains why it cannot bind
  portwatch exec --wait-free 60s ./server --port 8080
      if the old release still holds the port: starts it again when the port is free
  sudo portwatch exec -- sudo -u app ./server
      portwatch needs root, the server does not

The command inherits portwatch's stdin, stdout, stderr and process group. portwatch
passes on the signals that it receives. If portwatch is killed, the command and all
its descendants are killed too. portwatch does not wait for processes that the
command leaves behind.

Exit codes: the command's own, or 128 plus the number of the signal that ended it;
127 command not found, 126 the command cannot be run, 4 not permitted to watch binds
(then the command is not started).";

/// Identical failures within this time are reported together.
const STORM_WINDOW: Duration = Duration::from_secs(10);

/// Runs the command, and once more if `--wait-free` is given and may help.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let redaction = settings::redaction()?;
    watch::need_rights()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SystemError::at("start the runtime"))?
        .block_on(starts(args, &redaction))
}

async fn starts(args: &Args, redaction: &Redaction) -> Result<ExitCode, Failure> {
    let signals = Signals::hold_back().map_err(SystemError::at("read signals"))?;
    // The thread that this starts blocks the signals too.
    talk::start();
    set_child_subreaper(Some(getpid())).map_err(SystemError::at("become a child subreaper"))?;
    let locked_memory = getrlimit(Resource::Memlock);
    let refused = Refused::default();
    let end =
        watched(args, redaction, &signals, &locked_memory, &refused, async || Ok(None)).await?;
    let asked = refused.all();
    let Some(timeout) = args.wait_free.filter(|_| !end.is_success() && !asked.is_empty()) else {
        return Ok(end.into());
    };
    let wait = async || hold(&asked, timeout, end, &signals).await;
    Ok(watched(args, redaction, &signals, &locked_memory, &refused, wait).await?.into())
}

/// Starts the command and watches its binds, unless a signal arrives before that.
async fn watched(
    args: &Args,
    redaction: &Redaction,
    signals: &Signals,
    locked_memory: &Rlimit,
    refused: &Refused,
    before: impl AsyncFnOnce() -> Result<Option<End>, Failure>,
) -> Result<End, Failure> {
    let format = match args.format {
        Format::Human => sinks::Format::Human,
        Format::Json => sinks::Format::Json,
    };
    let told = Table::from(format).open(Stream::Stderr, Stream::Stderr.colour())?;
    let outcome_window = settings::outcome_window()?;
    let follow = Follow::within(outcome_window);
    let Watch { attached, enricher, host, .. } =
        Watch::descendants(&args.hooks.btf, args.hooks.choice, follow)?;
    let unattempted = Tally::of(&attached.ebpf, NOT_ATTEMPTED);
    let agent = Agent {
        attached,
        enricher,
        host,
        sinks: vec![told, Placed::new("exec.refused", refused.clone())],
        tuning: Tuning {
            filter: Filter::default(),
            storm_window: STORM_WINDOW,
            outcome_window,
            deadline: enrich::DEADLINE,
            redaction: redaction.clone(),
        },
        metrics: Arc::new(Metrics::new().map_err(SystemError::at("create the metrics"))?),
    };
    let end = pipeline::run(agent, async |_| {
        if let Some(end) = before().await? {
            return Ok::<_, Failure>(end);
        }
        // Signals that arrived before this point have not reached the command, and never will.
        if let Some(end) = ended_by(signals)? {
            return Ok(end);
        }
        say("portwatch: ready");
        // These messages come before the command's own output.
        talk::settle();
        let (program, arguments) = args.command.split_first().ok_or(UsageError::NoCommand)?;
        let child = Child::start(program, arguments, signals, *locked_memory)?;
        Ok(child.end(signals).await.map_err(SystemError::at("wait for the command"))?)
    })
    .await??;
    if let Some(count @ 1..) = unattempted.and_then(|it| it.count()) {
        say(answered_by_others(count));
    }
    Ok(end)
}

/// Returns why the command may have seen EADDRINUSE although no event says so.
fn answered_by_others(count: u64) -> String {
    let calls = match count {
        1 => "1 bind or listen of the command".to_owned(),
        more => format!("{more} binds or listens of the command"),
    };
    format!(
        "portwatch: {calls} returned EADDRINUSE but reached no socket: a seccomp filter or a tracer \
         answered in the kernel's place, and no socket blocks the port"
    )
}

/// Waits until the ports are free. Returns how to end if they do not become free, or if a
/// signal ends the wait.
async fn hold(
    asked: &[Asked],
    timeout: SignedDuration,
    end: End,
    signals: &Signals,
) -> Result<Option<End>, Failure> {
    let ports: Vec<_> = asked.iter().map(name).collect();
    say(format_args!("portwatch: waiting up to {timeout:#} until {} is free", ports.join(", ")));
    let interrupted = async {
        loop {
            let received = signals.next().await?;
            if received.ends() {
                return Ok::<_, std::io::Error>(End::of_signal(received.signal));
            }
        }
    };
    let host = Host::current();
    tokio::select! {
        waited = wait::wait(&host, asked, timeout.unsigned_abs(), |_| ()) => match waited {
            Ok(state) => match state.ports.iter().find(|port| !port.standing.met) {
                None => {
                    say("portwatch: free; starting the command once more");
                    talk::settle();
                    Ok(None)
                }
                Some(held) => {
                    let port = name(&held.asked);
                    say(format_args!(
                        "portwatch: {port} is still held after {timeout:#}; not started again"
                    ));
                    Ok(Some(end))
                }
            },
            Err(why) => {
                let which = why.port().and_then(|port| asked.iter().find(|one| one.port() == port));
                let port = which.map_or_else(|| ports.join(", "), name);
                say(format_args!(
                    "portwatch: cannot determine whether {port} is free: {why}; not started again"
                ));
                Ok(Some(end))
            }
        },
        ended = interrupted => Ok(Some(ended.map_err(SystemError::at("read signals"))?)),
    }
}

/// Returns a text like `tcp 127.0.0.1:8080`.
fn name(asked: &Asked) -> String {
    match asked {
        Asked::FreeAgain(failed) => words::target(&failed.failure).to_string(),
        Asked::Free(_) | Asked::Listening(_) => asked.port().to_string(),
    }
}

/// Returns how to end, if a signal has arrived that would have ended a running command.
fn ended_by(signals: &Signals) -> Result<Option<End>, Failure> {
    while let Some(received) = signals.pending().map_err(SystemError::at("read signals"))? {
        if received.ends() {
            return Ok(Some(End::of_signal(received.signal)));
        }
    }
    Ok(None)
}
