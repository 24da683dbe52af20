//! The way out: each sink has a queue and a thread of its own, so that one that
//! is slow, full or gone holds up neither the others nor the ring.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    event::{Loss, Record},
    losses::Losses,
    metrics::{Metrics, stage::Stage},
    sinks::{Place, Sink},
};

/// Records that wait for one sink.
const QUEUE: usize = 2048;
/// How often losses are said, so that many are one number, and how soon those that a
/// sink did not take are offered to it again.
const LOSS_INTERVAL: Duration = Duration::from_millis(200);

/// All sinks.
pub struct Outlets {
    all: Vec<Outlet>,
    metrics: Arc<Metrics>,
}

struct Outlet {
    place: &'static str,
    queue: SyncSender<Work>,
    losses: Arc<Losses>,
    stage: Arc<Stage>,
}

enum Work {
    Record(Arc<Record>),
    /// Losses are pending; there may be no record behind which to say them.
    Losses,
}

/// Ends when all sinks have, whether they were asked to or their readers are
/// gone.
pub struct AllEnded(mpsc::Receiver<()>);

impl AllEnded {
    /// Waits for it.
    pub async fn wait(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl Outlets {
    /// Starts a thread for each sink. When the outlets are dropped, each writes
    /// what it still has, its losses and `farewell`, and ends.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn open(
        sinks: Vec<(Place, Box<dyn Sink>)>,
        metrics: &Arc<Metrics>,
        farewell: impl Fn() -> Record + Clone + Send + 'static,
    ) -> io::Result<(Self, AllEnded)> {
        let (alive, ended) = mpsc::channel(1);
        let mut all = Vec::new();
        for (place, mut sink) in sinks {
            let (sender, queue) = sync_channel(QUEUE);
            let losses = Arc::new(Losses::default());
            let stage = metrics.stage(place.0);
            metrics.lost(place.0, 0);
            let writer = Writer {
                place: place.0,
                queue,
                losses: Arc::clone(&losses),
                stage: Arc::clone(&stage),
                metrics: Arc::clone(metrics),
            };
            let (alive, farewell) = (alive.clone(), farewell.clone());
            thread::Builder::new().name(place.0.to_owned()).spawn(move || {
                writer.run(&mut *sink, farewell);
                writer.stage.end();
                // What it does at its end belongs to the agent's life.
                drop(sink);
                drop(alive);
            })?;
            all.push(Outlet { place: place.0, queue: sender, losses, stage });
        }
        Ok((Self { all, metrics: Arc::clone(metrics) }, AllEnded(ended)))
    }

    /// Hands a record to every sink, and waits for none of them.
    pub fn offer(&self, record: Record) {
        let record = Arc::new(record);
        for outlet in &self.all {
            match outlet.queue(Work::Record(Arc::clone(&record))) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    outlet.losses.add(outlet.place, record.refusals());
                    self.metrics.lost(outlet.place, record.refusals());
                }
                // Its reader is gone: there is nobody whom a count could reach.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// What was lost before the sinks is missing in the stream of each of them.
    pub fn lost(&self, place: &'static str, count: u64) {
        self.metrics.lost(place, count);
        for outlet in &self.all {
            outlet.losses.add(place, count);
            if outlet.queue(Work::Losses).is_err() {
                tracing::trace!(place, "said with the next record");
            }
        }
    }
}

impl Outlet {
    fn queue(&self, work: Work) -> Result<(), TrySendError<Work>> {
        self.stage.add();
        self.queue.try_send(work).inspect_err(|_| self.stage.take_back())
    }
}

/// A sink's side of its queue.
struct Writer {
    place: &'static str,
    queue: Receiver<Work>,
    losses: Arc<Losses>,
    stage: Arc<Stage>,
    metrics: Arc<Metrics>,
}

/// The sink's reader is gone for good.
struct Gone;

impl Writer {
    /// Writes until the queue is closed and empty, or the sink's reader is gone.
    fn run(&self, sink: &mut dyn Sink, farewell: impl Fn() -> Record) {
        // The end by a reader that is gone needs no more words.
        let _: Result<(), Gone> = self.write_all(sink, farewell);
    }

    fn write_all(&self, sink: &mut dyn Sink, farewell: impl Fn() -> Record) -> Result<(), Gone> {
        let mut failing = false;
        let mut losses_due = Instant::now();
        loop {
            match self.next(sink, losses_due) {
                Ok(Work::Record(record)) => {
                    let written = sink.write(&record);
                    self.stage.done();
                    self.judge(written, record.refusals(), &mut failing)?;
                }
                Ok(Work::Losses) => self.stage.done(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.losses.are_pending() && losses_due <= Instant::now() {
                self.say_losses(sink);
                losses_due = Instant::now() + LOSS_INTERVAL;
            }
        }
        self.say_losses(sink);
        if self.losses.are_pending() {
            tracing::error!("{}: what it has lost could not be said", self.place);
        }
        let written = sink.write(&farewell());
        self.judge(written, 0, &mut failing)?;
        self.rest(sink);
        Ok(())
    }

    /// What comes next. Before it waits, the sink may see to what it has put off.
    fn next(&self, sink: &mut dyn Sink, losses_due: Instant) -> Result<Work, RecvTimeoutError> {
        match self.queue.try_recv() {
            Ok(work) => return Ok(work),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => {}
        }
        let wait = losses_due.saturating_duration_since(Instant::now());
        let losses = self.losses.are_pending().then_some(wait);
        match self.rest(sink).into_iter().chain(losses).min() {
            Some(wait) => self.queue.recv_timeout(wait),
            None => self.queue.recv().map_err(RecvTimeoutError::from),
        }
    }

    fn rest(&self, sink: &mut dyn Sink) -> Option<Duration> {
        sink.rest().unwrap_or_else(|error| {
            tracing::warn!(%error, "{}", self.place);
            None
        })
    }

    /// Counts what could not be written; the first failure in a row is said on
    /// stderr.
    fn judge(
        &self,
        written: io::Result<()>,
        refusals: u64,
        failing: &mut bool,
    ) -> Result<(), Gone> {
        match written {
            Ok(()) => *failing = false,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Gone),
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    tracing::error!(%error, "{} cannot be written", self.place);
                }
                self.losses.add(self.place, refusals);
                self.metrics.lost(self.place, refusals);
            }
        }
        Ok(())
    }

    fn say_losses(&self, sink: &mut dyn Sink) {
        self.losses
            .report(|place, count| sink.write(&Record::Loss(Loss::now(place, count))).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        mpsc::{Sender, channel},
    };

    use super::*;

    /// Gives what it writes to the test, and fails or waits as it is told.
    struct Fake {
        written: Sender<Record>,
        answers: Receiver<io::Result<()>>,
    }

    impl Sink for Fake {
        fn write(&mut self, record: &Record) -> io::Result<()> {
            self.answers.recv().unwrap_or(Ok(()))?;
            self.written.send(record.clone()).unwrap();
            Ok(())
        }
    }

    fn metrics() -> Arc<Metrics> {
        Arc::new(Metrics::new().unwrap())
    }

    struct Side {
        written: Receiver<Record>,
        answers: Sender<io::Result<()>>,
    }

    fn fake() -> (Box<dyn Sink>, Side) {
        let (written, seen) = channel();
        let (answers, asked) = channel();
        (Box::new(Fake { written, answers: asked }), Side { written: seen, answers })
    }

    /// A record that stands for `count` refusals.
    fn record(count: u64) -> Record {
        Record::Loss(Loss::now("test", count))
    }

    fn counts(side: Side) -> Vec<(String, u64)> {
        let Side { written, answers } = side;
        drop(answers);
        written
            .iter()
            .map(|record| match record {
                Record::Loss(loss) => (loss.place, loss.count),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn of<'a>(counts: &'a [(String, u64)], place: &'a str) -> impl Iterator<Item = u64> + 'a {
        counts.iter().filter(move |(at, _)| at == place).map(|(_, count)| *count)
    }

    #[test]
    fn one_that_stalls_keeps_nothing_from_the_other_and_counts_what_it_missed() {
        let (stalled, stalled_side) = fake();
        let (quick, quick_side) = fake();
        let sinks = vec![(Place("sink.a"), stalled), (Place("sink.b"), quick)];
        let (outlets, _ended) = Outlets::open(sinks, &metrics(), || record(0)).unwrap();
        let all = QUEUE as u64 * 3;
        for n in 0..all {
            quick_side.answers.send(Ok(())).unwrap();
            outlets.offer(record(1));
            let Ok(Record::Loss(loss)) = quick_side.written.recv() else { panic!("{n}") };
            assert_eq!(loss.place, "test");
        }
        drop(outlets);
        let stalled = counts(stalled_side);
        let (told, lost) = (of(&stalled, "test").sum::<u64>(), of(&stalled, "sink.a").sum::<u64>());
        assert!(told >= QUEUE as u64 && lost > 0, "{told} told, {lost} lost");
        assert_eq!(told + lost, all);
        assert_eq!(of(&counts(quick_side), "sink.b").sum::<u64>(), 0);
    }

    #[test]
    fn what_fails_is_counted_and_said_when_it_works_again() {
        let (sink, side) = fake();
        let (outlets, _ended) =
            Outlets::open(vec![(Place("sink.a"), sink)], &metrics(), || record(0)).unwrap();
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        // The record, and the first time that a loss is said.
        for answer in [full(), full()] {
            side.answers.send(answer).unwrap();
        }
        outlets.offer(record(5));
        outlets.lost("ring", 2);
        drop(outlets);
        let said = counts(side);
        assert_eq!(of(&said, "sink.a").collect::<Vec<_>>(), [5], "{said:?}");
        assert_eq!(of(&said, "ring").collect::<Vec<_>>(), [2], "{said:?}");
    }

    #[test]
    fn the_end_of_the_last_is_told() {
        let (sink, side) = fake();
        let (outlets, mut ended) =
            Outlets::open(vec![(Place("sink.a"), sink)], &metrics(), || record(0)).unwrap();
        side.answers.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        outlets.offer(record(1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(ended.wait());
        outlets.offer(record(1));
        let _unused = Mutex::new(side);
    }
}
