//! `portwatch run`: the agent.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use crate::{
    kernel::attach::SourceLimit,
    pipeline::{self, Agent, AllEnded},
    watch::{self, Watch},
};

/// Options of `run`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    output: Output,
    /// Report this port only; may be given several times
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// Equal failures within this time are told once at their beginning and once
    /// with their number; 0s tells each of them
    #[arg(long, value_name = "TIME", default_value = "10s")]
    storm_window: jiff::SignedDuration,
}

const EXAMPLES: &str = "\
Examples:
  portwatch run
      each refused bind of the machine, as a block of text
  portwatch run --format json --port 8080 --port 8443
      two ports only, one JSON object per line
  portwatch run --format journald --capture /var/lib/portwatch
      as a service: into the journal, and kept for portwatch replay";

/// Runs until interrupted.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let storm_window = args.storm_window.unsigned_abs();
    let limit = match storm_window.is_zero() {
        true => SourceLimit::Unlimited,
        false => SourceLimit::Counted,
    };
    watch::need_rights()?;
    let sinks = args.output.open()?;
    let watch = Watch::everybody(limit)?;
    announce(&watch);
    let hooks = watch.plan.set.name();
    let ready = format!("portwatch: ready, {hooks} hooks on {}", watch.host.kernel);
    let ports = args.ports.clone();
    let agent = Agent {
        attached: watch.attached,
        enricher: watch.enricher,
        host: watch.host,
        sinks,
        wanted: Box::new(move |source| ports.is_empty() || ports.contains(&source.port)),
        storm_window,
    };
    let until_stopped = async |sinks: &mut AllEnded| {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        eprintln!("{ready}");
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            tracing::debug!(%error, "no service manager to notify");
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = sinks.wait() => {}
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(pipeline::run(agent, until_stopped))?
        .context("failed to watch signals")?;
    Ok(ExitCode::SUCCESS)
}

/// What was chosen, what it costs and what it cannot see.
fn announce(watch: &Watch) {
    let plan = &watch.plan;
    if let Some(because) = &plan.because {
        eprintln!("portwatch: fexit hooks are not to be had ({because}); using tracepoints");
    }
    eprintln!("portwatch: cost: {}", plan.set.cost());
    let known = plan.set.misses().iter().copied();
    for miss in known.chain(watch.attached.misses.iter().map(String::as_str)) {
        eprintln!("portwatch: not seen: {miss}");
    }
}
