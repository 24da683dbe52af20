//! `portwatch run`: the agent.

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc};

use sd_notify::NotifyState;
use strum::VariantArray as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    error::{Failure, SystemError},
    hooks::Hooks,
    settings,
    streams::{Stream, say},
};
use crate::{
    agents::Door,
    config::{
        Settings,
        filter::{Filter, Ignored},
    },
    event::Action,
    kernel::{
        attach::{Follow, SourceLimit, Wanted},
        rights,
    },
    metrics::{Metrics, server::Server},
    pipeline::{self, Agent, Controls, Tuning},
    talk,
    watch::{self, Watch},
};

mod manager;
mod reload;

use reload::Reload;

/// Options of `run`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    settings: settings::Given,
    #[command(flatten)]
    hooks: Hooks,
}

const EXAMPLES: &str = "\
Examples:
  portwatch run
      each failed bind on the machine, as a block of text
  portwatch run --format json --port 8080 --port 8443
      only two ports, one JSON object per line
  portwatch run --format journald --capture /var/lib/portwatch --metrics 9749
      as a service: writes to the journal, keeps a capture for portwatch replay,
      serves metrics for Prometheus

SIGHUP reloads the file, and no failed bind is missed meanwhile. Output settings
(format, capture, metrics) change only on restart. At a terminal SIGHUP ends the
agent.";

/// Runs until interrupted.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    watch::need_rights()?;
    let settings = args.settings.read()?.settings;
    let server = settings.metrics.as_ref().map(Server::bind).transpose()?;
    let tuning = tuning(&settings);
    let wanted = Wanted {
        limit: limit(&settings),
        follow: follow(&settings),
        port: &|port| tuning.filter.wants_port(port),
    };
    let watch = Watch::everybody(&args.hooks.btf, args.hooks.choice, wanted)?;
    // Threads that are started from now on have few capabilities, so no thread is started
    // before this.
    rights::give_away().map_err(SystemError::at("drop capabilities"))?;
    let (sinks, out) = (settings.sinks(), Stream::Stdout);
    let sinks = sinks.iter().map(|sink| sink.open(out, out.colour())).collect::<Result<_, _>>()?;
    announce(&watch);
    talk::start();
    let metrics = Arc::new(Metrics::new().map_err(SystemError::at("create the metrics"))?);
    metrics.attached(&watch.plan, &watch.attached, &watch.host);
    let hooks = watch.plan.set;
    let ready = format!("portwatch: ready, {hooks} hooks on {}", watch.host.kernel);
    let agent = Agent {
        attached: watch.attached,
        enricher: watch.enricher,
        host: watch.host,
        sinks,
        tuning,
        metrics: Arc::clone(&metrics),
    };
    // Reports of portwatch free are welcome, not needed.
    let door = Door::open().inspect_err(|error| {
        tracing::warn!(%error, "portwatch free cannot report what it does");
    });
    let until_stopped = async |controls: &mut Controls| {
        let mut signals = Signals::watch().map_err(SystemError::at("watch signals"))?;
        say(&ready);
        manager::ready();
        let metrics = Arc::clone(&metrics);
        tokio::select! {
            served = serve(server, &metrics) => served?,
            () = manager::attend(&metrics) => {}
            () = attend(door.ok(), controls.actions()) => {}
            stopped = signals.obey(args, &settings, controls, &metrics) => stopped,
        }
        manager::tell(&[NotifyState::Stopping]);
        Ok::<_, Failure>(())
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SystemError::at("start the runtime"))?
        .block_on(pipeline::run(agent, until_stopped))??;
    tell_ignored(&metrics);
    Ok(ExitCode::SUCCESS)
}

/// Serves metrics if they are enabled. Ends only with an error.
async fn serve(server: Option<Server>, metrics: &Arc<Metrics>) -> Result<(), Failure> {
    match server {
        Some(server) => match server.serve(Arc::clone(metrics)).await? {},
        None => std::future::pending().await,
    }
}

/// Accepts what `portwatch free` reports. Never ends.
async fn attend(door: Option<Door>, actions: mpsc::Sender<Box<Action>>) {
    if let Some(door) = door {
        let ended = door.attend(|action| actions.try_send(action).is_ok()).await;
        tracing::warn!(?ended, "portwatch free can no longer report what it does");
    }
    std::future::pending().await
}

/// The signals that the agent handles.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether SIGHUP comes from the terminal.
    at_terminal: bool,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            at_terminal: std::io::stdin().is_terminal(),
        })
    }

    /// Handles signals until one ends the agent, or all outputs are closed.
    async fn obey(
        &mut self,
        args: &Args,
        settings: &Settings,
        controls: &mut Controls,
        metrics: &Metrics,
    ) {
        let mut reload = Reload::of(&args.settings, settings);
        loop {
            let progress = tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => {
                    if self.at_terminal {
                        return;
                    }
                    reload.begin(metrics);
                    continue;
                }
                progress = reload.progress() => progress,
                () = controls.ended.wait() => return,
            };
            reload.go_on(progress, controls, metrics).await;
        }
    }
}

/// Returns the settings that can change while the agent runs.
fn tuning(settings: &Settings) -> Tuning {
    Tuning {
        filter: Filter::new(settings),
        storm_window: settings.storm_window.0,
        outcome_window: settings.outcome_window.0,
        deadline: settings.enrichment_deadline.0,
        redaction: settings.redaction(),
    }
}

/// Returns whether the kernel side only counts some failed binds. These are reported at the end
/// of a window, so there must be a window.
fn limit(settings: &Settings) -> SourceLimit {
    match settings.storm_window.0.is_zero() {
        true => SourceLimit::Unlimited,
        false => SourceLimit::Counted,
    }
}

/// Returns whether the kernel side follows failing processes.
fn follow(settings: &Settings) -> Follow {
    Follow::within(settings.outcome_window.0)
}

/// Logs which hook set was chosen, what it costs and what it cannot see.
fn announce(watch: &Watch) {
    let plan = &watch.plan;
    for (set, because) in &plan.because {
        say(format_args!("portwatch: the {set} hooks are not available: {because}"));
    }
    say(format_args!("portwatch: cost: {}", plan.cost));
    let known = plan.set.spec().misses.iter().copied();
    for miss in known.chain(watch.attached.misses.iter().map(String::as_str)) {
        say(format_args!("portwatch: not seen: {miss}"));
    }
}

/// Logs what the configuration's filters have ignored.
fn tell_ignored(metrics: &Metrics) {
    for &by in Ignored::VARIANTS {
        let count = metrics.ignored_by(by);
        if count > 0 {
            say(format_args!("portwatch: {count} failed binds were ignored by {by}"));
        }
    }
}
