//! The agent's metrics for Prometheus. Every label has few values, and the series for the
//! alerts exist from the start with the value zero, so that the first failed bind is an
//! increase.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus::{
    Error, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};
use strum::VariantArray as _;

use crate::{
    config::filter::Ignored,
    diagnose::Cause,
    event::{Event, Host, Outcome, outcome::Became},
    evidence::{Protocol, Stage as CallStage},
    kernel::{
        attach::Attached,
        plan::Plan,
        skips::Skips,
        tally::{self, Tally},
    },
    losses::PLACES,
    shared::Shared,
    talk::Ear,
};

pub mod server;
pub mod stage;
mod unseen;

use stage::{Stage, Stuck};
use unseen::Unseen;

/// Upper bounds in seconds. Enrichment usually takes some milliseconds, and its deadline is 250
/// ms.
const ENRICHMENT: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];

/// All metrics.
pub struct Metrics {
    registry: Registry,
    failures: IntCounterVec,
    outcomes: IntCounterVec,
    harmful: IntCounterVec,
    untracked: IntCounter,
    unseen: IntCounter,
    /// Actions of followed processes that were lost.
    pub followed_lost: Unseen,
    lost: IntCounterVec,
    ignored: IntCounterVec,
    ratelimited: IntCounter,
    enrichment: Histogram,
    attached: IntGaugeVec,
    skipped: IntCounterVec,
    skips: OnceLock<Vec<Skips>>,
    not_attempted: IntCounter,
    kernels: OnceLock<[Option<Tally>; 2]>,
    messages: IntCounterVec,
    build: IntGaugeVec,
    started: Gauge,
    reloaded: IntGauge,
    reload_time: Gauge,
    queues: IntGaugeVec,
    stages: Shared<Vec<Arc<Stage>>>,
}

impl Metrics {
    /// Creates all metrics with the value zero.
    ///
    /// # Errors
    /// A name is invalid. No such name is known.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let counters = |name, help, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name, help, labels: &[&str]| {
            registered(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counter = |name, help: &str| registered(&registry, IntCounter::new(name, help)?);
        let time = |name: &str, help: &str| registered(&registry, Gauge::new(name, help)?);
        let enrichment = HistogramOpts::new(
            "portwatch_enrichment_seconds",
            "Time to collect the evidence for one failed bind, in seconds",
        );
        let metrics = Self {
            failures: counters(
                "portwatch_bind_failures_total",
                "Binds and listens that failed with EADDRINUSE, including those that are only \
                 counted in a summary",
                &["cause", "protocol", "stage"],
            )?,
            outcomes: counters(
                "portwatch_outcomes_total",
                "Events by what became of the failed bind",
                &["outcome"],
            )?,
            harmful: counters(
                "portwatch_outcomes_harmful_total",
                "Events whose program failed because of it: it still fails to bind, or exited \
                 without its port by a signal or with another status than 0",
                &["outcome"],
            )?,
            untracked: registered(
                &registry,
                IntCounter::new(
                    "portwatch_outcomes_untracked_total",
                    "Events without an outcome because too many processes were being followed",
                )?,
            )?,
            unseen: registered(
                &registry,
                IntCounter::new(
                    "portwatch_outcomes_unseen_total",
                    "Binds, forks and exits of followed processes that were lost, so that an \
                     outcome may be wrong",
                )?,
            )?,
            followed_lost: Unseen::default(),
            lost: counters(
                "portwatch_events_lost_total",
                "Failed binds that were lost and have no event in the stream, or in that of one sink",
                &["where"],
            )?,
            ignored: counters(
                "portwatch_ignored_total",
                "Failed binds that the configuration ignores",
                &["by"],
            )?,
            ratelimited: counter(
                "portwatch_ratelimited_total",
                "Failed binds of processes that fail too often to collect evidence for each; an \
                 event's count includes them",
            )?,
            enrichment: registered(
                &registry,
                Histogram::with_opts(enrichment.buckets(ENRICHMENT.to_vec()))?,
            )?,
            attached: gauges(
                "portwatch_probe_attached",
                "Whether an eBPF program is attached: 1 yes, 0 no",
                &["probe"],
            )?,
            skipped: counters(
                "portwatch_probe_skipped_total",
                "Runs of an eBPF program that the kernel skipped because a task was preempted or \
                 interrupted inside it",
                &["probe"],
            )?,
            skips: OnceLock::new(),
            not_attempted: counter(
                "portwatch_not_attempted_total",
                "Binds and listens that a seccomp filter or a tracer answered with EADDRINUSE and \
                 that never reached a socket (tracepoint set)",
            )?,
            kernels: OnceLock::new(),
            messages: counters(
                "portwatch_messages_dropped_total",
                "Messages about the agent that were dropped because nobody read them in time",
                &["where"],
            )?,
            build: gauges(
                "portwatch_build_info",
                "1, with the agent's version and its hook set",
                &["version", "hooks"],
            )?,
            started: time(
                "portwatch_start_time_seconds",
                "Unix time at which the hooks were attached, in seconds",
            )?,
            reloaded: registered(
                &registry,
                IntGauge::new(
                    "portwatch_config_last_reload_successful",
                    "Whether the last reload of the configuration succeeded: 1 yes, 0 no",
                )?,
            )?,
            reload_time: time(
                "portwatch_config_last_reload_success_timestamp_seconds",
                "Unix time of the last successful reload of the configuration, in seconds",
            )?,
            queues: gauges(
                "portwatch_queue_length",
                "Waiting items: failed binds before enrichment (enrich), records before a sink",
                &["queue"],
            )?,
            stages: Shared::default(),
            registry,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    fn begin_at_zero(&self) {
        for &cause in Cause::VARIANTS {
            for (protocol, stage) in [
                (Protocol::Tcp, CallStage::Bind),
                (Protocol::Tcp, CallStage::Listen),
                (Protocol::Udp, CallStage::Bind),
            ] {
                let labels: [&str; 3] = [cause.into(), protocol.into(), stage.into()];
                self.failures.with_label_values(&labels).inc_by(0);
            }
        }
        for outcome in Became::VARIANTS {
            self.outcomes.with_label_values(&[<&str>::from(outcome)]).inc_by(0);
        }
        for outcome in [Became::Exited, Became::StillFailing] {
            self.harmful.with_label_values(&[<&str>::from(outcome)]).inc_by(0);
        }
        for place in PLACES {
            self.lost.with_label_values(&[place]).inc_by(0);
        }
        for by in Ignored::VARIANTS {
            self.ignored.with_label_values(&[<&str>::from(by)]).inc_by(0);
        }
    }

    /// Records the attached hooks.
    pub fn attached(&self, plan: &Plan, attached: &Attached, host: &Host) {
        for probe in &plan.probes {
            let is_attached = attached.probes.contains(probe);
            self.attached.with_label_values(&[probe.program]).set(i64::from(is_attached));
        }
        self.skips.get_or_init(|| Skips::of(&attached.ebpf, &attached.probes));
        let names = [tally::NOT_ATTEMPTED, tally::IGNORED];
        self.kernels.get_or_init(|| names.map(|name| Tally::of(&attached.ebpf, name)));
        self.followed_lost.of_ring(&attached.ebpf);
        self.build.with_label_values(&[env!("CARGO_PKG_VERSION"), &host.hooks]).set(1);
        self.started.set(now());
        self.reloaded(true);
    }

    /// Records a reload, and whether it took effect.
    pub fn reloaded(&self, taken_over: bool) {
        self.reloaded.set(i64::from(taken_over));
        if taken_over {
            self.reload_time.set(now());
        }
    }

    /// Counts an event that is passed to the sinks.
    pub fn told(&self, event: &Event) {
        let Event { count, failure, diagnosis, .. } = event;
        let labels: [&str; 3] =
            [diagnosis.cause.into(), failure.protocol.into(), failure.stage.into()];
        self.failures.with_label_values(&labels).inc_by(*count);
    }

    /// Counts an outcome of an event's failed bind.
    pub fn became(&self, outcome: &Outcome) {
        let label = [<&str>::from(outcome.outcome)];
        self.outcomes.with_label_values(&label).inc();
        if outcome.is_harm() {
            self.harmful.with_label_values(&label).inc();
        }
    }

    /// Counts events that have no outcome.
    pub fn untracked(&self, events: u64) {
        self.untracked.inc_by(events);
    }

    /// Counts lost failed binds.
    pub fn lost(&self, place: &'static str, count: u64) {
        self.lost.with_label_values(&[place]).inc_by(count);
    }

    /// Counts failed binds that a filter ignores.
    pub fn ignored(&self, by: Ignored, count: u64) {
        self.ignored.with_label_values(&[<&str>::from(by)]).inc_by(count);
    }

    /// Returns how many failed binds a filter has ignored so far.
    pub fn ignored_by(&self, by: Ignored) -> u64 {
        self.read_tallies();
        self.ignored.with_label_values(&[<&str>::from(by)]).get()
    }

    /// Counts failed binds that the kernel side has only counted.
    pub fn ratelimited(&self, count: u64) {
        self.ratelimited.inc_by(count);
    }

    /// Records the enrichment of one failed bind.
    pub fn enriched(&self, took: Duration) {
        self.enrichment.observe(took.as_secs_f64());
    }

    /// Adds a queue and its thread, whose progress is watched from now on.
    pub fn stage(&self, name: &'static str) -> Arc<Stage> {
        let stage = Arc::new(Stage::new(name));
        self.stages.push(Arc::clone(&stage));
        stage
    }

    /// Checks whether waiting items make progress, for the stage with that name, or for all
    /// stages.
    ///
    /// # Errors
    /// The first stage that makes no progress.
    pub fn health(&self, name: Option<&str>) -> Result<(), Stuck> {
        let stages = self.stages.get();
        let mut wanted = stages.iter().filter(|stage| name.is_none_or(|name| name == stage.name));
        wanted.try_for_each(|stage| stage.health(Instant::now()))
    }

    /// Returns the failed binds that each stage still has to report, as text.
    pub fn unfinished(&self) -> String {
        let stages = self.stages.get();
        let owing = stages.iter().filter(|stage| stage.owed() > 0);
        let words: Vec<_> =
            owing.map(|stage| format!("{} in {}", stage.owed(), stage.name)).collect();
        words.join(", ")
    }

    /// Reads the values that only the kernel side counts.
    fn read_tallies(&self) {
        let ignored = self.ignored.with_label_values(&[<&str>::from(Ignored::Port)]);
        let all = [&self.not_attempted, &ignored];
        for (said, tally) in all.into_iter().zip(self.kernels.get().into_iter().flatten()) {
            let count = tally.as_ref().and_then(Tally::count).unwrap_or(0);
            said.inc_by(count.saturating_sub(said.get()));
        }
    }

    /// Returns all metrics in Prometheus's text format.
    ///
    /// # Errors
    /// A name is invalid. No such name is known.
    pub fn text(&self) -> Result<String, Error> {
        let length = |stage: &Arc<Stage>| i64::try_from(stage.waiting()).unwrap_or(i64::MAX);
        let stages = self.stages.get();
        for stage in &stages {
            // Several captures have the same name.
            let same = stages.iter().filter(|other| other.name == stage.name);
            self.queues.with_label_values(&[stage.name]).set(same.map(length).sum());
        }
        for skips in self.skips.get().into_iter().flatten() {
            let Some(count) = skips.count() else { continue };
            let said = self.skipped.with_label_values(&[skips.program]);
            said.inc_by(count.saturating_sub(said.get()));
        }
        self.read_tallies();
        self.unseen.inc_by(self.followed_lost.total().saturating_sub(self.unseen.get()));
        for &ear in Ear::VARIANTS {
            let said = self.messages.with_label_values(&[<&str>::from(ear)]);
            said.inc_by(ear.missed().saturating_sub(said.get()));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of this age are exact in an f64")]
fn now() -> f64 {
    Timestamp::now().as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests;
