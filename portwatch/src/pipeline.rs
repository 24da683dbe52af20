//! The agent: kernel hook → decode → enrich → diagnose → sinks, one direction.
//!
//! Joined by bounded queues, so that nothing behind the ring can hold it up: this
//! task reads and decodes, one thread enriches and diagnoses, one for each sink
//! writes ([`outlet`]). What a full queue drops is counted and said in the stream.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use aya_log::EbpfLogger;
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    decode::{RawFailure, decode},
    diagnose::diagnose,
    enrich::Enricher,
    event::{AgentNotice, AgentState, Event, Host, Record},
    kernel::{attach::Attached, ring::Ring},
    sinks::{Place, Sink},
};

mod outlet;

use outlet::Outlets;

/// Decoded refusals that wait for enrichment: 2.5 MiB at most.
const RAW_QUEUE: usize = 4096;
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

/// Runs until SIGINT or SIGTERM, or until the readers of all sinks are gone.
/// `ready` is called once everything is attached.
///
/// # Errors
/// The ring cannot be opened or polled, or a thread cannot be started.
pub async fn run(agent: Agent, ready: impl FnOnce()) -> Result<(), AgentError> {
    let Agent { mut attached, enricher, host, sinks, ports } = agent;
    let io = |step| move |source| AgentError::Io { step, source };
    let mut ring = Ring::open(&mut attached.ebpf)?;
    forward_kernel_log(&mut attached);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("watch SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("watch SIGTERM"))?;

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
            move || enrich_failures(enricher, &host, &for_enrich, &outlets)
        })
        .map_err(io("start the enriching thread"))?;

    ready();
    loop {
        tokio::select! {
            readable = ring.readable() => readable.map_err(io("poll the ring buffer"))?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = all_ended.wait() => return Ok(()),
        }
        take_all(&mut ring, &ports, &to_enrich, &outlets);
    }
    // Detach first, so that what is drained now is all there will be.
    drop(attached);
    take_all(&mut ring, &ports, &to_enrich, &outlets);
    drop((to_enrich, outlets));
    // The enriching thread ends when its queue is empty, the writing ones after
    // it. A reader that does not read must not keep the agent from stopping.
    if timeout(STOP_DEADLINE, all_ended.wait()).await.is_err() {
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
fn take_all(
    ring: &mut Ring,
    ports: &[u16],
    to_enrich: &SyncSender<Box<RawFailure>>,
    outlets: &Outlets,
) {
    ring.drain(|bytes| match decode(bytes) {
        Ok(raw) if ports.is_empty() || ports.contains(&raw.port) => {
            if to_enrich.try_send(Box::new(raw)).is_err() {
                outlets.lost("queue", 1);
            }
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "record not decoded");
            outlets.lost("decode", 1);
        }
    });
    for (place, count) in ring.new_losses() {
        outlets.lost(place, count);
    }
}

fn enrich_failures(
    mut enricher: Enricher,
    host: &Host,
    from_ring: &Receiver<Box<RawFailure>>,
    outlets: &Outlets,
) {
    loop {
        let raw = match enricher.next_rest() {
            Some(wait) => from_ring.recv_timeout(wait),
            None => from_ring.recv().map_err(RecvTimeoutError::from),
        };
        match raw {
            Ok(raw) => {
                let evidence = enricher.enrich(&raw);
                let diagnosis = diagnose(&evidence);
                let event = Event::new(host, &raw, evidence, diagnosis);
                outlets.offer(Record::BindFailure(Box::new(event)));
            }
            Err(RecvTimeoutError::Timeout) => enricher.rest(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
