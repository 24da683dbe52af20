//! The agent: kernel hook → decode → enrich → diagnose → sinks, in one direction.
//!
//! Bounded queues connect the stages, so that no later stage can block the ring: this task
//! reads and decodes, one thread enriches and diagnoses, and one thread for each sink writes
//! ([`outlet`]). What a full queue drops is counted and reported in the stream.

use std::{pin::pin, sync::Arc, thread, time::Duration};

use aya::Ebpf;
use aya_log::EbpfLogger;
use portwatch_common::Tenant;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    advice::{Advised, FAILED},
    config::filter::Filter,
    decode::{self, RawRecord},
    enrich::{Enricher, host::boottime_ns},
    event::{Action, AgentNotice, AgentState, Host, Record},
    kernel::{
        attach::{Attached, detach},
        follow::Following,
        limits::{CountedBy, Limits},
        ports::IgnoredPorts,
        ring::Ring,
    },
    metrics::{
        Metrics,
        stage::{ENRICH, Stage},
    },
    shared::fair_queue::FairQueue,
    sinks::Placed,
};

mod asking;
mod budget;
mod enriching;
mod outcomes;
mod outlet;
mod room;
mod storms;

use asking::Asking;
use budget::Budget;
pub use enriching::Tuning;
use enriching::{Enriching, Slot, Work};
use outcomes::{Blind, Outcomes};
pub use outlet::AllEnded;
use outlet::Outlets;
use storms::Storms;

/// Decoded failed binds that wait for enrichment: 2.5 MiB at most.
const RAW_QUEUE: usize = 4096;
/// Interval between reads of the kernel side's counts.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);
/// Pause between removals of old entries from the kernel's tables.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Actions of `portwatch free` that wait to be reported.
const ACTIONS: usize = 16;
/// How long a stop waits until the queues are empty.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a sink may then need to complete a write for which its output has space, and how
/// often it is looked at.
const CLOSE_DEADLINE: Duration = Duration::from_millis(200);
const CLOSE_INTERVAL: Duration = Duration::from_millis(1);

/// The parts of the agent.
pub struct Agent {
    /// The attached programs.
    pub attached: Attached,
    /// The enricher.
    pub enricher: Enricher,
    /// The host, as it is written in events.
    pub host: Host,
    /// The sinks.
    pub sinks: Vec<Placed>,
    /// Settings that can change while it runs.
    pub tuning: Tuning,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// What the caller can do while the pipeline runs.
pub struct Controls {
    /// Completes when the outputs of all sinks are closed.
    pub ended: AllEnded,
    tunings: mpsc::Sender<Tuning>,
    actions: mpsc::Sender<Box<Action>>,
}

impl Controls {
    /// Changes the tuning. No record is lost because of the change.
    pub async fn tune(&self, tuning: Tuning) {
        if self.tunings.send(tuning).await.is_err() {
            tracing::debug!("the agent is stopping");
        }
    }

    /// Returns where actions of `portwatch free` are accepted. Those about ports that are not
    /// selected are not reported.
    pub fn actions(&self) -> mpsc::Sender<Box<Action>> {
        self.actions.clone()
    }
}

/// Why the agent ended without being stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The ring buffer cannot be opened.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::KernelError),
    /// The operating system rejected something that the loop needs.
    #[error("failed to {step}")]
    Io {
        /// The step that failed.
        step: &'static str,
        /// The error.
        source: std::io::Error,
    },
}

impl Advised for AgentError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Kernel(error) => error.hint(),
            Self::Io { .. } => {
                "check the limits of processes, open files and memory (ulimit -a, and the unit's \
                 TasksMax= and LimitNOFILE=)"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Kernel(error) => error.exit_code(),
            Self::Io { .. } => FAILED,
        }
    }
}

/// Runs until `meanwhile` completes, which starts once everything is attached. When this
/// returns, all binds that failed before that end have been written.
///
/// # Errors
/// The ring cannot be opened or polled, or a thread cannot be started.
pub async fn run<T>(
    agent: Agent,
    meanwhile: impl AsyncFnOnce(&mut Controls) -> T,
) -> Result<T, AgentError> {
    let Agent { attached, mut enricher, host, sinks, tuning, metrics } = agent;
    let Tuning { filter, storm_window, outcome_window, deadline, redaction } = tuning;
    let Attached { mut ebpf, ignored_ports, probes, .. } = attached;
    enricher.redact_by(redaction);
    let io = |step| move |source| AgentError::Io { step, source };
    let ring = Ring::open(&mut ebpf)?;
    let limits = Limits::open(&mut ebpf)?;
    let following = Following::open(&mut ebpf)?;
    forward_kernel_log(&mut ebpf);

    let notice = {
        let host = host.clone();
        move |state| Record::Agent(AgentNotice::now(state, &host))
    };
    let started = notice(AgentState::Started);
    let (outlets, ended) = Outlets::open(sinks, &metrics, move || notice(AgentState::Stopped))
        .map_err(io("start a sink's thread"))?;
    let outlets = Arc::new(outlets);
    outlets.offer(started);
    let queue = Arc::new(FairQueue::new(RAW_QUEUE));
    let stage = metrics.stage(ENRICH);
    let slot = Slot::default();
    let enriching = Enriching {
        enricher,
        storms: Storms::new(storm_window),
        outcomes: Outcomes::new(outcome_window, storm_window, Blind::of(&probes)),
        budget: Budget::default(),
        deadline,
        filter: filter.clone(),
        slot: Arc::clone(&slot),
        host,
        outlets: Arc::clone(&outlets),
        asking: Asking::start(&outlets, outcome_window)
            .map_err(io("start the thread for service managers"))?,
        metrics: Arc::clone(&metrics),
        stage: Arc::clone(&stage),
    };
    thread::Builder::new()
        .name("enrich".to_owned())
        .spawn({
            let queue = Arc::clone(&queue);
            move || enriching.run(&queue)
        })
        .map_err(io("start the enriching thread"))?;

    let (tunings, mut tuned) = mpsc::channel(1);
    let (actions, mut acted) = mpsc::channel(ACTIONS);
    let mut controls = Controls { ended, tunings, actions };
    let counted = Arc::clone(&metrics);
    let mut intake = Intake {
        ring,
        limits,
        following,
        sweep: None,
        outcome_window,
        ignored_ports,
        filter,
        slot,
        handover: Handover { queue, stage, outlets, metrics },
    };
    let result = {
        let mut meanwhile = pin!(meanwhile(&mut controls));
        // When the counts are read next; `None` while nothing can have been counted.
        let mut counts: Option<Instant> = None;
        loop {
            let sweep = intake.sweep;
            tokio::select! {
                biased;
                result = &mut meanwhile => break result,
                Some(tuning) = tuned.recv() => intake.tune(tuning),
                Some(action) = acted.recv() => intake.report(action),
                () = sleep_until(counts.unwrap_or_else(Instant::now)), if counts.is_some() => {
                    counts = intake.take_counted().then(|| Instant::now() + COUNT_INTERVAL);
                }
                () = sleep_until(sweep.unwrap_or_else(Instant::now)), if sweep.is_some() => {
                    intake.sweep();
                }
                readable = intake.ring.readable() => {
                    readable.map_err(io("poll the ring buffer"))?;
                    intake.take_sent();
                    counts.get_or_insert_with(|| Instant::now() + COUNT_INTERVAL);
                }
            }
        }
    };
    let Controls { ended: mut all_ended, .. } = controls;
    // Detach first, so that the following drain gets all records.
    detach(ebpf, &probes);
    while let Ok(action) = acted.try_recv() {
        intake.report(action);
    }
    intake.take_counted();
    drop(intake);
    // The enriching thread ends when its queue is empty, and the writing threads end after it.
    // A stuck output must not keep the agent from stopping.
    if timeout(STOP_DEADLINE, all_ended.wait()).await.is_err() {
        // Nothing that is counted here reaches a reader afterwards.
        let end = Instant::now() + CLOSE_DEADLINE;
        while !all_ended.close() && Instant::now() < end {
            sleep(CLOSE_INTERVAL).await;
        }
        let unwritten = counted.unfinished();
        tracing::error!("an output is stuck; failed binds that were not reported: {unwritten}");
    }
    Ok(result)
}

/// Writes messages of the kernel side to the agent's own log.
fn forward_kernel_log(ebpf: &mut Ebpf) {
    match EbpfLogger::init(ebpf) {
        Ok(logger) => {
            tokio::spawn(async move {
                // SAFETY: the descriptor belongs to the log map. It is open as long as the
                // logger lives, and is always the same one.
                let Ok(mut logger) = (unsafe { AsyncFd::register(logger) }) else { return };
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Err(error) => tracing::debug!(%error, "the log of the kernel side is not available"),
    }
}

/// The kernel side's end of the pipeline.
struct Intake {
    ring: Ring,
    limits: Limits,
    ignored_ports: IgnoredPorts,
    filter: Filter,
    following: Following,
    /// When old entries are removed next; `None` while nothing is followed.
    sweep: Option<Instant>,
    outcome_window: Duration,
    slot: Slot,
    handover: Handover,
}

impl Intake {
    /// Moves the records that the kernel side has sent to the enriching thread. Never waits for
    /// it.
    fn take_sent(&mut self) {
        let Self { ring, following, sweep, handover, .. } = self;
        ring.drain(|bytes| match decode::record(bytes) {
            Ok(RawRecord::Failure(mut raw)) => {
                if raw.watch.is_some() {
                    sweep.get_or_insert_with(|| Instant::now() + SWEEP_INTERVAL);
                    if !following.admits(&raw) {
                        raw.watch = None;
                    }
                }
                pass_on(handover, raw.tenant(), Work::Failure(raw));
            }
            Ok(RawRecord::Followed(mut raw)) => {
                following.note(&mut raw);
                pass_on(handover, raw.tenant, Work::Followed(Box::new(raw)));
            }
            Err(error) => {
                tracing::warn!(%error, "a record could not be decoded");
                handover.outlets.lost("decode", 1);
            }
        });
        for (place, count) in self.ring.new_losses() {
            self.handover.outlets.lost(place, count);
        }
    }

    /// Does the same, and also takes what was only counted. Returns whether failed binds may
    /// still be only counted.
    fn take_counted(&mut self) -> bool {
        // Everything that a source sent before it was counted is in the ring by now, and
        // reaches the enriching thread first.
        let (counted, none_left) = self.limits.collect(boottime_ns());
        self.take_sent();
        for counted in counted {
            if counted.by == CountedBy::Tenant {
                self.handover.metrics.ratelimited(counted.count);
                self.handover.outlets.lost("share", counted.count);
            } else {
                let work = Work::Counted(counted);
                pass_on(&self.handover, counted.tenant, work);
            }
        }
        !none_left
    }

    /// Removes old entries from the tables of followed processes.
    fn sweep(&mut self) {
        let left = self.following.sweep(boottime_ns(), self.outcome_window);
        self.sweep = left.then(|| Instant::now() + SWEEP_INTERVAL);
    }

    /// Reports what `portwatch free` did, if its port is selected.
    fn report(&self, action: Box<Action>) {
        if self.filter.wants_port(action.port) {
            self.handover.outlets.offer(Record::Action(action));
        }
    }

    /// Stores a new tuning, and wakes the enriching thread.
    fn tune(&mut self, tuning: Tuning) {
        let wants = |port| tuning.filter.wants_port(port);
        if let Err(error) = self.ignored_ports.set(wants) {
            tracing::error!(%error, "the new selection of ports is in effect for some of them only");
        }
        self.outcome_window = tuning.outcome_window;
        self.filter = tuning.filter.clone();
        self.slot.replace(Some(tuning));
        self.handover.queue.wake();
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.handover.queue.close();
    }
}

/// The enriching thread, as the receiver of work.
struct Handover {
    queue: Arc<FairQueue<Work>>,
    stage: Arc<Stage>,
    outlets: Arc<Outlets>,
    metrics: Arc<Metrics>,
}

/// Queues work. What it displaces is lost, and may be the work itself.
fn pass_on(to: &Handover, tenant: Tenant, work: Work) {
    to.stage.add();
    match to.queue.push(tenant, work) {
        Some(Work::Followed(dropped)) => {
            to.stage.take_back();
            to.metrics.followed_lost.add(dropped.tenant);
        }
        Some(dropped) => {
            to.stage.take_back();
            to.outlets.lost("queue", dropped.count());
        }
        None => {}
    }
}
