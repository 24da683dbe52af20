//! The agent: kernel hook → decode → enrich → diagnose → sink, one direction.
//!
//! Three places run side by side, joined by bounded queues, so that nothing
//! behind the ring can hold it up: this task reads and decodes, one thread
//! enriches and diagnoses, one writes. What a full queue drops is counted and
//! said in the stream.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use aya_log::EbpfLogger;
use jiff::Timestamp;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use crate::{
    decode::{RawFailure, decode},
    diagnose::diagnose,
    enrich::Enricher,
    event::{Event, Host, LOSS, Loss, Record},
    kernel::{attach::Attached, ring::Ring},
    losses::Losses,
    sinks::Sink,
};

/// Decoded refusals that wait for enrichment: 2.5 MiB at most.
const RAW_QUEUE: usize = 4096;
/// Records that wait for the sink.
const SINK_QUEUE: usize = 2048;
/// How soon losses that found no room are offered again.
const LOSS_INTERVAL: Duration = Duration::from_millis(200);
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
    pub sink: Box<dyn Sink>,
    /// Only these ports; all if empty.
    pub ports: Vec<u16>,
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

enum Work {
    Failure(Box<RawFailure>),
    /// Losses are pending; there may be no failure to carry them out.
    Losses,
}

/// Runs until SIGINT or SIGTERM, or until the sink's reader is gone. `ready` is
/// called once everything is attached.
///
/// # Errors
/// The ring cannot be opened or polled, or a thread cannot be started.
pub async fn run(agent: Agent, ready: impl FnOnce()) -> Result<(), AgentError> {
    let Agent { mut attached, enricher, host, sink, ports } = agent;
    let io = |step| move |source| AgentError::Io { step, source };
    let mut ring = Ring::open(&mut attached.ebpf)?;
    forward_kernel_log(&mut attached);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("watch SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("watch SIGTERM"))?;

    let losses = Arc::new(Losses::default());
    let (to_sink, for_sink) = sync_channel(SINK_QUEUE);
    let (to_enrich, for_enrich) = sync_channel(RAW_QUEUE);
    let (written, mut all_written) = oneshot::channel();
    thread::Builder::new()
        .name("sink".to_owned())
        .spawn(move || {
            write_records(sink, &for_sink);
            // The receiver is gone only when the agent has given up waiting.
            let _ = written.send(());
        })
        .map_err(io("start the sink's thread"))?;
    thread::Builder::new()
        .name("enrich".to_owned())
        .spawn({
            let losses = Arc::clone(&losses);
            move || enrich_failures(enricher, &host, &for_enrich, &to_sink, &losses)
        })
        .map_err(io("start the enriching thread"))?;

    ready();
    loop {
        tokio::select! {
            readable = ring.readable() => readable.map_err(io("poll the ring buffer"))?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = &mut all_written => return Ok(()),
        }
        take_all(&mut ring, &ports, &to_enrich, &losses);
    }
    // Detach first, so that what is drained now is all there will be.
    drop(attached);
    take_all(&mut ring, &ports, &to_enrich, &losses);
    drop(to_enrich);
    // The enriching thread ends when its queue is empty, the writing one after
    // it. A reader that does not read must not keep the agent from stopping.
    if timeout(STOP_DEADLINE, all_written).await.is_err() {
        tracing::error!("output is stuck: what had not been written is lost");
    }
    Ok(())
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

/// Moves what is in the ring to the enriching thread, and never waits for it.
fn take_all(ring: &mut Ring, ports: &[u16], to_enrich: &SyncSender<Work>, losses: &Losses) {
    ring.drain(|bytes| match decode(bytes) {
        Ok(raw) if ports.is_empty() || ports.contains(&raw.port) => {
            if to_enrich.try_send(Work::Failure(Box::new(raw))).is_err() {
                losses.add("queue", 1);
            }
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "record not decoded");
            losses.add("decode", 1);
        }
    });
    for (place, count) in ring.new_losses() {
        losses.add(place, count);
        // A full queue is no loss: its reader reports what is pending as well.
        if to_enrich.try_send(Work::Losses).is_err() {
            tracing::debug!("losses are reported with the next event");
        }
    }
}

fn enrich_failures(
    mut enricher: Enricher,
    host: &Host,
    from_ring: &Receiver<Work>,
    to_sink: &SyncSender<Record>,
    losses: &Losses,
) {
    loop {
        // What the sink had no room for is offered again soon, also when no
        // failure comes.
        let offer = losses.are_pending().then_some(LOSS_INTERVAL);
        let work = match offer.into_iter().chain(enricher.next_rest()).min() {
            Some(wait) => from_ring.recv_timeout(wait),
            None => from_ring.recv().map_err(RecvTimeoutError::from),
        };
        match work {
            Ok(Work::Failure(raw)) => {
                let evidence = enricher.enrich(&raw);
                let diagnosis = diagnose(&evidence);
                let event = Event::new(host, &raw, evidence, diagnosis);
                if to_sink.try_send(Record::BindFailure(Box::new(event))).is_err() {
                    losses.add("sink", 1);
                }
            }
            Ok(Work::Losses) => {}
            Err(RecvTimeoutError::Timeout) => enricher.rest(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        losses.report(|place, count| to_sink.try_send(loss(place, count)).is_ok());
    }
    // The last words may wait for room: nothing comes after them.
    losses.report(|place, count| to_sink.send(loss(place, count)).is_ok());
}

fn loss(place: &str, count: u64) -> Record {
    Record::Loss(Loss {
        schema: LOSS.to_owned(),
        time: Timestamp::now(),
        place: place.to_owned(),
        count,
    })
}

/// Ends when the queue is closed and empty, or the sink's reader is gone.
fn write_records(mut sink: Box<dyn Sink>, records: &Receiver<Record>) {
    for record in records {
        if let Err(error) = sink.write(&record) {
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                tracing::error!(%error, "output cannot be written");
            }
            return;
        }
    }
}
