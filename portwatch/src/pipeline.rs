//! The agent: kernel hook → decode → enrich → diagnose → sinks, one direction.
//!
//! Joined by bounded queues, so that nothing behind the ring can hold it up: this
//! task reads and decodes, one thread enriches and diagnoses, one for each sink
//! writes ([`outlet`]). What a full queue drops is counted and said in the stream.

use std::{
    pin::pin,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use aya_log::EbpfLogger;
use portwatch_common::Source;
use tokio::{
    io::unix::AsyncFd,
    time::{sleep, timeout},
};

use crate::{
    decode::{RawFailure, decode},
    diagnose::diagnose,
    enrich::{Enricher, host::boottime_ns},
    event::{AgentNotice, AgentState, Event, Host, Record},
    kernel::{
        attach::Attached,
        limits::{Counted, Limits},
        ring::Ring,
    },
    sinks::{Place, Sink},
};

mod outlet;
mod storms;

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
    /// Whether a source's refusals are to be told. Asked for each record of the
    /// kernel side, so it must be quick.
    pub wanted: Box<dyn Fn(&Source) -> bool>,
    /// Equal failures within this time are told together; zero tells each.
    pub storm_window: Duration,
}

/// What the enriching thread is given.
enum Work {
    Failure(Box<RawFailure>),
    /// Refusals that the kernel side has only counted.
    Counted(Counted),
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

/// Runs for as long as `meanwhile` does, which is begun once everything is attached
/// and can be told when the readers of all sinks are gone. What has been refused by
/// its end has been written when this returns.
///
/// # Errors
/// The ring cannot be opened or polled, or a thread cannot be started.
pub async fn run<T>(
    agent: Agent,
    meanwhile: impl AsyncFnOnce(&mut AllEnded) -> T,
) -> Result<T, AgentError> {
    let Agent { mut attached, enricher, host, sinks, wanted, storm_window } = agent;
    let io = |step| move |source| AgentError::Io { step, source };
    let ring = Ring::open(&mut attached.ebpf)?;
    let limits = Limits::open(&mut attached.ebpf)?;
    forward_kernel_log(&mut attached);

    let notice = {
        let host = host.clone();
        move |state| Record::Agent(AgentNotice::now(state, &host))
    };
    let started = notice(AgentState::Started);
    let (outlets, mut all_ended) = Outlets::open(sinks, move || notice(AgentState::Stopped))
        .map_err(io("start a sink's thread"))?;
    let outlets = Arc::new(outlets);
    outlets.offer(started);
    let (to_enrich, for_enrich) = sync_channel(RAW_QUEUE);
    thread::Builder::new()
        .name("enrich".to_owned())
        .spawn({
            let outlets = Arc::clone(&outlets);
            let storms = Storms::new(storm_window);
            move || enrich_failures(enricher, storms, &host, &for_enrich, &outlets)
        })
        .map_err(io("start the enriching thread"))?;

    let mut intake = Intake { ring, limits, wanted, to_enrich, outlets };
    let result = {
        let mut meanwhile = pin!(meanwhile(&mut all_ended));
        let mut counting = false;
        loop {
            tokio::select! {
                readable = intake.ring.readable() => readable.map_err(io("poll the ring buffer"))?,
                () = sleep(COUNT_INTERVAL), if counting => {}
                result = &mut meanwhile => break result,
            }
            counting = intake.take_all();
        }
    };
    // Detach first, so that what is drained now is all there will be.
    drop(attached);
    intake.take_all();
    drop(intake);
    // The enriching thread ends when its queue is empty, the writing ones after
    // it. A reader that does not read must not keep the agent from stopping.
    if timeout(STOP_DEADLINE, all_ended.wait()).await.is_err() {
        tracing::error!("output is stuck: what had not been written is lost");
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
    wanted: Box<dyn Fn(&Source) -> bool>,
    to_enrich: SyncSender<Work>,
    outlets: Arc<Outlets>,
}

impl Intake {
    /// Moves what the kernel side has to the enriching thread, and never waits for
    /// it. Gives whether there are sources whose refusals may be only counted.
    fn take_all(&mut self) -> bool {
        // The counts first: what a source has sent before them is in the ring, and
        // comes to the enriching thread before they do.
        let (counted, none_left) = self.limits.collect(boottime_ns());
        let Self { ring, wanted, to_enrich, outlets, .. } = self;
        let mut any = false;
        ring.drain(|bytes| {
            any = true;
            match decode(bytes) {
                Ok(raw) if wanted(&raw.source) => {
                    if to_enrich.try_send(Work::Failure(Box::new(raw))).is_err() {
                        outlets.lost("queue", 1);
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "record not decoded");
                    outlets.lost("decode", 1);
                }
            }
        });
        for counted in counted.into_iter().filter(|counted| wanted(&counted.source)) {
            if to_enrich.try_send(Work::Counted(counted)).is_err() {
                outlets.lost("queue", counted.count);
            }
        }
        for (place, count) in ring.new_losses() {
            outlets.lost(place, count);
        }
        any || !none_left
    }
}

fn enrich_failures(
    mut enricher: Enricher,
    mut storms: Storms,
    host: &Host,
    from_ring: &Receiver<Work>,
    outlets: &Outlets,
) {
    let tell = |event| outlets.offer(Record::BindFailure(Box::new(event)));
    loop {
        let wait = enricher.next_rest().into_iter().chain(storms.next_end(Instant::now())).min();
        let work = match wait {
            Some(wait) => from_ring.recv_timeout(wait),
            None => from_ring.recv().map_err(RecvTimeoutError::from),
        };
        let now = Instant::now();
        match work {
            Ok(Work::Failure(raw)) => {
                if !storms.absorb(&raw, now) {
                    let evidence = enricher.enrich(&raw);
                    let diagnosis = diagnose(&evidence);
                    let event = Event::new(host, &raw, evidence, diagnosis);
                    storms.admit(&raw, event, now).into_iter().for_each(tell);
                }
            }
            Ok(Work::Counted(Counted { source, count, last_ns })) => {
                if !storms.count(&source, count, last_ns) {
                    outlets.lost("source", count);
                }
            }
            Err(RecvTimeoutError::Timeout) => enricher.rest(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        storms.ended(now).into_iter().for_each(tell);
    }
    storms.all().into_iter().for_each(tell);
}
