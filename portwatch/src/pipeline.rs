//! The agent: kernel hook → decode → enrich → diagnose → sinks, one direction.
//!
//! Joined by bounded queues, so that nothing behind the ring can hold it up: this
//! task reads and decodes, one thread enriches and diagnoses, one for each sink
//! writes ([`outlet`]). What a full queue drops is counted and said in the stream.

use std::{
    pin::pin,
    sync::{
        Arc, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use aya_log::EbpfLogger;
use portwatch_common::Source;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    advice::{Advised, FAILED},
    config::filter::{Filter, Ignored},
    decode::decode,
    enrich::{Enricher, host::boottime_ns},
    event::{AgentNotice, AgentState, Host, Record},
    kernel::{attach::Attached, limits::Limits, ring::Ring},
    metrics::{
        Metrics,
        stage::{ENRICH, Stage},
    },
    sinks::{Place, Sink},
};

mod enriching;
mod outlet;
mod storms;

pub use enriching::Tuning;
use enriching::{Enriching, Slot, Work};
pub use outlet::AllEnded;
use outlet::Outlets;
use storms::Storms;

/// Decoded refusals that wait for enrichment: 2.5 MiB at most.
const RAW_QUEUE: usize = 4096;
/// How soon counts of the kernel side are read again.
const COUNT_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stop waits for what is still queued.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What the agent is made of.
pub struct Agent {
    /// The attached programs.
    pub attached: Attached,
    /// Fills evidence in.
    pub enricher: Enricher,
    /// The host, as events carry it.
    pub host: Host,
    /// Where records go.
    pub sinks: Vec<(Place, Box<dyn Sink>)>,
    /// What may be changed later.
    pub tuning: Tuning,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// What whoever runs the pipeline can do meanwhile.
pub struct Controls {
    /// Is told when the readers of all sinks are gone.
    pub ended: AllEnded,
    tunings: mpsc::Sender<Tuning>,
}

impl Controls {
    /// Changes what may be changed; nothing is lost by that.
    pub async fn tune(&self, tuning: Tuning) {
        if self.tunings.send(tuning).await.is_err() {
            tracing::debug!("the agent ends");
        }
    }
}

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The ring buffer cannot be opened.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::KernelError),
    /// The operating system refused something the loop needs.
    #[error("failed to {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The answer.
        source: std::io::Error,
    },
}

impl Advised for AgentError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Kernel(error) => error.hint(),
            Self::Io { .. } => {
                "look at the limits of processes, open files and memory (ulimit -a, and the unit's \
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

/// Runs for as long as `meanwhile` does, which is begun once everything is attached. What has been refused by
/// its end has been written when this returns.
///
/// # Errors
/// The ring cannot be opened or polled, or a thread cannot be started.
pub async fn run<T>(
    agent: Agent,
    meanwhile: impl AsyncFnOnce(&mut Controls) -> T,
) -> Result<T, AgentError> {
    let Agent { mut attached, mut enricher, host, sinks, tuning, metrics } = agent;
    let Tuning { filter, storm_window, deadline, redaction } = tuning;
    enricher.tune(deadline, redaction);
    let io = |step| move |source| AgentError::Io { step, source };
    let ring = Ring::open(&mut attached.ebpf)?;
    let limits = Limits::open(&mut attached.ebpf)?;
    forward_kernel_log(&mut attached);

    let notice = {
        let host = host.clone();
        move |state| Record::Agent(AgentNotice::now(state, &host))
    };
    let started = notice(AgentState::Started);
    let (outlets, ended) = Outlets::open(sinks, &metrics, move || notice(AgentState::Stopped))
        .map_err(io("start a sink's thread"))?;
    let outlets = Arc::new(outlets);
    outlets.offer(started);
    let (to_enrich, for_enrich) = sync_channel(RAW_QUEUE);
    let stage = metrics.stage(ENRICH);
    let slot = Slot::default();
    let enriching = Enriching {
        enricher,
        storms: Storms::new(storm_window),
        filter: filter.clone(),
        slot: Arc::clone(&slot),
        host,
        outlets: Arc::clone(&outlets),
        metrics: Arc::clone(&metrics),
        stage: Arc::clone(&stage),
    };
    thread::Builder::new()
        .name("enrich".to_owned())
        .spawn(move || enriching.run(&for_enrich))
        .map_err(io("start the enriching thread"))?;

    let (tunings, mut tuned) = mpsc::channel(1);
    let mut controls = Controls { ended, tunings };
    let counted = Arc::clone(&metrics);
    let mut intake = Intake { ring, limits, filter, slot, to_enrich, outlets, metrics, stage };
    let result = {
        let mut meanwhile = pin!(meanwhile(&mut controls));
        let mut counting = false;
        loop {
            tokio::select! {
                readable = intake.ring.readable() => readable.map_err(io("poll the ring buffer"))?,
                () = sleep(COUNT_INTERVAL), if counting => {}
                Some(tuning) = tuned.recv() => intake.tune(tuning),
                result = &mut meanwhile => break result,
            }
            counting = intake.take_all();
        }
    };
    let Controls { ended: mut all_ended, .. } = controls;
    // Detach first, so that what is drained now is all there will be.
    drop(attached);
    intake.take_all();
    drop(intake);
    // The enriching thread ends when its queue is empty, the writing ones after
    // it. A reader that does not read must not keep the agent from stopping.
    if timeout(STOP_DEADLINE, all_ended.wait()).await.is_err() {
        let unwritten = counted.unfinished();
        tracing::error!("output is stuck; lost with what had not been written: {unwritten}");
    }
    Ok(result)
}

/// Messages of the kernel side join our own on stderr.
fn forward_kernel_log(attached: &mut Attached) {
    match EbpfLogger::init(&mut attached.ebpf) {
        Ok(logger) => {
            tokio::spawn(async move {
                // SAFETY: the descriptor is the log map's own, open for as long
                // as the logger lives, and always the same one.
                let Ok(mut logger) = (unsafe { AsyncFd::register(logger) }) else { return };
                while let Ok(mut ready) = logger.readable_mut().await {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            });
        }
        Err(error) => tracing::debug!(%error, "no kernel-side log"),
    }
}

/// The kernel side's end of the pipeline.
struct Intake {
    ring: Ring,
    limits: Limits,
    filter: Filter,
    slot: Slot,
    to_enrich: SyncSender<Work>,
    outlets: Arc<Outlets>,
    metrics: Arc<Metrics>,
    stage: Arc<Stage>,
}

impl Intake {
    /// Moves what the kernel side has to the enriching thread, and never waits for
    /// it. Gives whether there are sources whose refusals may be only counted.
    fn take_all(&mut self) -> bool {
        // The counts first: what a source has sent before them is in the ring, and
        // comes to the enriching thread before they do.
        let (counted, none_left) = self.limits.collect(boottime_ns());
        let mut any = false;
        let (to_enrich, outlets, stage) = (&self.to_enrich, &self.outlets, &self.stage);
        let wanted = |source: &Source, count| {
            let wanted = self.filter.wants_port(source.port);
            if !wanted {
                self.metrics.ignored(Ignored::Port, count);
            }
            wanted
        };
        let pass_on = |work, count| {
            stage.add();
            if to_enrich.try_send(work).is_err() {
                stage.take_back();
                outlets.lost("queue", count);
            }
        };
        self.ring.drain(|bytes| {
            any = true;
            match decode(bytes) {
                Ok(raw) if wanted(&raw.source, 1) => pass_on(Work::Failure(Box::new(raw)), 1),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "record not decoded");
                    outlets.lost("decode", 1);
                }
            }
        });
        for counted in counted {
            let count = counted.count;
            if wanted(&counted.source, count) {
                pass_on(Work::Counted(counted), count);
            }
        }
        for (place, count) in self.ring.new_losses() {
            outlets.lost(place, count);
        }
        any || !none_left
    }

    /// Takes another tuning over, and hands it to the enriching thread, which looks for
    /// it whenever something comes.
    fn tune(&mut self, tuning: Tuning) {
        self.filter = tuning.filter.clone();
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(tuning);
        self.stage.add();
        if self.to_enrich.try_send(Work::Tuned).is_err() {
            // The queue is full, so there is something that comes.
            self.stage.take_back();
        }
    }
}
