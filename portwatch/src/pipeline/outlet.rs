//! The output side. Each sink has its own queue and thread, so that a slow, full or closed sink
//! delays neither the other sinks nor the ring.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    event::{Loss, Record, memory},
    losses::Losses,
    metrics::{Metrics, stage::Stage},
    shared::queue::{Budget, Next, Receiver, Refused, Sender, queue},
    sinks::{Placed, Sink, gate::Gate},
};

/// Records that wait for one sink, and the memory that they may take.
const QUEUE: Budget = Budget { most: 2048, cost: 8 << 20 };
/// Interval between loss records, so that many losses become one count, and between attempts
/// to write to a sink that failed.
const LOSS_INTERVAL: Duration = Duration::from_millis(200);

/// All sinks.
pub struct Outlets {
    all: Vec<Outlet>,
    metrics: Arc<Metrics>,
}

struct Outlet {
    place: &'static str,
    queue: Sender<Arc<Record>>,
    losses: Arc<Losses>,
    stage: Arc<Stage>,
}

/// Completes when all sinks have ended, because of a stop or because their outputs are closed.
pub struct AllEnded {
    alive: mpsc::Receiver<()>,
    gates: Vec<Arc<Gate>>,
}

impl AllEnded {
    /// Waits for it.
    pub async fn wait(&mut self) {
        while self.alive.recv().await.is_some() {}
    }

    /// Ends all writes. Returns whether they have ended: a sink that is writing at this moment
    /// is not interrupted, but one that waits for its reader will write nothing more.
    pub fn close(&self) -> bool {
        // Each is tried.
        self.gates.iter().filter(|gate| !gate.close()).count() == 0
    }
}

impl Outlets {
    /// Starts a thread for each sink. When the outlets are dropped, each thread writes what is
    /// still queued, its losses and `farewell`, and ends.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn open(
        sinks: Vec<Placed>,
        metrics: &Arc<Metrics>,
        farewell: impl Fn() -> Record + Clone + Send + 'static,
    ) -> io::Result<(Self, AllEnded)> {
        let (alive, ended) = mpsc::channel(1);
        let mut all = Vec::new();
        let gates = sinks.iter().map(|placed| Arc::clone(&placed.gate)).collect();
        for Placed { place, mut sink, gate } in sinks {
            let (sender, queue) = queue(QUEUE);
            let losses = Arc::new(Losses::of(place.0));
            let stage = metrics.stage(place.0);
            metrics.lost(place.0, 0);
            let writer = Writer {
                place: place.0,
                queue,
                losses: Arc::clone(&losses),
                stage: Arc::clone(&stage),
                metrics: Arc::clone(metrics),
                gate,
            };
            let (alive, farewell) = (alive.clone(), farewell.clone());
            thread::Builder::new().name(place.0.to_owned()).spawn(move || {
                writer.run(&mut *sink, farewell);
                writer.stage.end();
                writer.gate.leave();
                // The sink's cleanup is part of the agent's run time.
                drop(sink);
                drop(alive);
            })?;
            all.push(Outlet { place: place.0, queue: sender, losses, stage });
        }
        Ok((Self { all, metrics: Arc::clone(metrics) }, AllEnded { alive: ended, gates }))
    }

    /// Offers a record to every sink, and waits for none of them.
    pub fn offer(&self, record: Record) {
        // A record that no sink can write does not fit in a queue either.
        let cost = memory::of(&record).unwrap_or(usize::MAX);
        let record = Arc::new(record);
        for outlet in &self.all {
            outlet.stage.add();
            outlet.stage.owe(record.refusals());
            match outlet.queue.offer(Arc::clone(&record), cost) {
                Ok(()) => {}
                Err(Refused::Full) => {
                    outlet.stage.take_back();
                    tell_of_action(outlet.place, &record);
                    outlet.losses.add(outlet.place, record.refusals());
                    self.metrics.lost(outlet.place, record.refusals());
                    outlet.queue.tell();
                }
                // The output is closed, so no count could be reported there.
                Err(Refused::Gone) => outlet.stage.take_back(),
            }
        }
    }

    /// Counts what was lost before the sinks, for the stream of each.
    pub fn lost(&self, place: &'static str, count: u64) {
        self.metrics.lost(place, count);
        for outlet in &self.all {
            outlet.stage.owe(count);
            outlet.losses.add(place, count);
            outlet.queue.tell();
        }
    }
}

/// A sink's side of its queue.
struct Writer {
    place: &'static str,
    queue: Receiver<Arc<Record>>,
    losses: Arc<Losses>,
    stage: Arc<Stage>,
    metrics: Arc<Metrics>,
    gate: Arc<Gate>,
}

/// Says that an output lacks an action: it is no failed bind, so no count is missing one.
fn tell_of_action(place: &str, record: &Record) {
    if let Record::Action(action) = record {
        tracing::warn!("{place}: the record of portwatch free of port {} was lost", action.port);
    }
}

/// The error that the output is closed permanently.
struct Gone;

/// Whether the last attempt failed: only the first failure in a row is logged.
#[derive(Default)]
struct Failing {
    writing: bool,
    resting: bool,
}

impl Writer {
    /// Writes until the queue is closed and empty, or the output is closed.
    fn run(&self, sink: &mut dyn Sink, farewell: impl Fn() -> Record) {
        // A closed output is not an error here.
        let _: Result<(), Gone> = self.write_all(sink, farewell);
    }

    fn write_all(&self, sink: &mut dyn Sink, farewell: impl Fn() -> Record) -> Result<(), Gone> {
        self.gate.enter();
        let mut failing = Failing::default();
        let mut losses_due = Instant::now();
        loop {
            let rest = self.rest(sink, &mut failing).map(|wait| Instant::now() + wait);
            let losses = (self.losses.pending() > 0).then_some(losses_due);
            self.gate.leave();
            let next = self.queue.next(rest.into_iter().chain(losses).min());
            self.gate.enter();
            match next {
                Next::One(record) => {
                    let written = sink.write(&record);
                    self.stage.done();
                    if written.is_err() {
                        tell_of_action(self.place, &record);
                    }
                    self.judge(written, record.refusals(), &mut failing)?;
                }
                Next::Nothing => {}
                Next::End => break,
            }
            if self.losses.pending() > 0 && losses_due <= Instant::now() {
                self.say_losses(sink)?;
                losses_due = Instant::now() + LOSS_INTERVAL;
            }
        }
        self.say_losses(sink)?;
        if self.losses.pending() > 0 {
            tracing::error!("{}: the count of its lost records could not be written", self.place);
        }
        let written = sink.write(&farewell());
        self.judge(written, 0, &mut failing)?;
        self.rest(sink, &mut failing);
        Ok(())
    }

    /// Lets the sink do its postponed work. Returns how soon it must be called again.
    fn rest(&self, sink: &mut dyn Sink, failing: &mut Failing) -> Option<Duration> {
        let rested = sink.rest();
        self.lost(sink.lost());
        match rested {
            Ok(again) => {
                failing.resting = false;
                again
            }
            Err(error) => {
                if !std::mem::replace(&mut failing.resting, true) {
                    tracing::warn!(%error, "{}", self.place);
                }
                None
            }
        }
    }

    /// Counts what could not be written.
    fn judge(
        &self,
        written: io::Result<()>,
        refusals: u64,
        failing: &mut Failing,
    ) -> Result<(), Gone> {
        match written {
            Ok(()) => {
                failing.writing = false;
                self.stage.told(refusals);
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Gone),
            Err(error) => {
                if !std::mem::replace(&mut failing.writing, true) {
                    tracing::error!(%error, "{} cannot be written", self.place);
                }
                self.losses.add(self.place, refusals);
                self.metrics.lost(self.place, refusals);
            }
        }
        Ok(())
    }

    /// Counts records that were written but lost afterwards.
    fn lost(&self, refusals: u64) {
        if refusals > 0 {
            self.stage.owe(refusals);
            self.losses.add(self.place, refusals);
            self.metrics.lost(self.place, refusals);
        }
    }

    /// Reports losses. What cannot be reported now is reported later, unless the output is
    /// closed.
    fn say_losses(&self, sink: &mut dyn Sink) -> Result<(), Gone> {
        let mut gone = false;
        self.losses.report(|place, count| {
            if gone {
                return false;
            }
            let said = sink.write(&Record::Loss(Loss::now(place, count)));
            gone = said.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
            if said.is_ok() {
                self.stage.told(count);
            }
            said.is_ok()
        });
        if gone { Err(Gone) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
