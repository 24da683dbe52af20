use std::{
    io::{PipeReader, Read as _, pipe},
    sync::{
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::{
    event::outcome::examples,
    sinks::{Format, Place, Table},
};

/// Passes what it writes to the test, and fails or blocks on command.
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

fn placed(place: &'static str, sink: Box<dyn Sink>) -> Placed {
    Placed { place: Place(place), sink, gate: Arc::default() }
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

/// A record that counts for `count` failed binds.
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
    let sinks = vec![placed("sink.a", stalled), placed("sink.b", quick)];
    let (outlets, _ended) = Outlets::open(sinks, &metrics(), || record(0)).unwrap();
    let all = QUEUE.most as u64 * 3;
    for n in 0..all {
        quick_side.answers.send(Ok(())).unwrap();
        outlets.offer(record(1));
        let Ok(Record::Loss(loss)) = quick_side.written.recv() else { panic!("{n}") };
        assert_eq!(loss.place, "test");
    }
    drop(outlets);
    let stalled = counts(stalled_side);
    let (told, lost) = (of(&stalled, "test").sum::<u64>(), of(&stalled, "sink.a").sum::<u64>());
    assert!(told >= QUEUE.most as u64 && lost > 0, "{told} told, {lost} lost");
    assert_eq!(told + lost, all);
    assert_eq!(of(&counts(quick_side), "sink.b").sum::<u64>(), 0);
}

#[test]
fn what_fails_is_counted_and_said_when_it_works_again() {
    let (sink, side) = fake();
    let (outlets, _ended) =
        Outlets::open(vec![placed("sink.a", sink)], &metrics(), || record(0)).unwrap();
    let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
    // The record, and the first attempt to report a loss.
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
        Outlets::open(vec![placed("sink.a", sink)], &metrics(), || record(0)).unwrap();
    side.answers.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    outlets.offer(record(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(ended.wait());
    outlets.offer(record(1));
    drop(side);
}

/// Only losses arrive, and the output is closed.
#[test]
fn a_reader_that_is_gone_is_noticed_by_a_loss_as_well() {
    let (sink, side) = fake();
    let (outlets, mut ended) =
        Outlets::open(vec![placed("sink.a", sink)], &metrics(), || record(0)).unwrap();
    side.answers.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    outlets.lost("ring", 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let ends = async { tokio::time::timeout(Duration::from_secs(10), ended.wait()).await };
    runtime.block_on(ends).expect("it goes on writing to nobody");
    drop((outlets, side));
}

/// The output is slow to take its own losses.
#[test]
fn nobody_waits_for_a_loss_to_be_said() {
    let (sink, side) = fake();
    let metrics = metrics();
    let (outlets, _ended) =
        Outlets::open(vec![placed("sink.a", sink)], &metrics, || record(0)).unwrap();
    outlets.lost("ring", 1);
    // It is being written by now, or soon.
    let (done, told) = channel();
    thread::spawn(move || {
        for _ in 0..1_000 {
            outlets.lost("ring", 1);
            outlets.lost("queue", 1);
            outlets.offer(record(1));
            thread::sleep(Duration::from_micros(100));
        }
        done.send(outlets).unwrap();
    });
    let outlets = told.recv_timeout(Duration::from_secs(30)).expect("it waits for the reader");
    assert_eq!(metrics.unfinished(), "3001 in sink.a");
    drop(outlets);
    let said = counts(side);
    assert_eq!(of(&said, "ring").sum::<u64>(), 1_001);
    assert_eq!(of(&said, "queue").sum::<u64>(), 1_000);
    // Losses displaced no record.
    assert_eq!((of(&said, "test").sum::<u64>(), of(&said, "sink.a").sum::<u64>()), (1_000, 0));
}

fn large(bytes: usize) -> Record {
    let line = include_str!("../../../../tests/golden/listener.jsonl");
    let Ok(Record::BindFailure(mut event)) = crate::event::read::record(line.trim_end()) else {
        panic!()
    };
    event.process.cmdline = vec!["x".repeat(bytes)].into();
    Record::BindFailure(event)
}

#[test]
fn few_large_ones_fill_a_queue_as_many_small_ones_do() {
    let (sink, side) = fake();
    let (outlets, _ended) =
        Outlets::open(vec![placed("sink.a", sink)], &metrics(), || record(0)).unwrap();
    for _ in 0..20 {
        outlets.offer(large(1 << 20));
    }
    outlets.offer(record(1));
    drop(outlets);
    let Side { written, answers } = side;
    drop(answers);
    let (mut told, mut lost) = (0, 0);
    for record in written {
        match record {
            Record::BindFailure(event) => told += event.count,
            Record::Loss(loss) if loss.place == "sink.a" => lost += loss.count,
            _ => {}
        }
    }
    assert!((7..=8).contains(&told), "{told} told");
    assert_eq!(told + lost, 20);
}

/// A sink that has postponed work each second, and lost some of its records.
#[test]
fn a_steady_stream_is_no_reason_not_to_see_to_what_was_put_off() {
    struct Resting(Sender<&'static str>, u64);
    impl Sink for Resting {
        fn write(&mut self, _record: &Record) -> io::Result<()> {
            self.0.send("write").map_err(io::Error::other)
        }
        fn rest(&mut self) -> io::Result<Option<Duration>> {
            self.0.send("rest").map_err(io::Error::other)?;
            Ok(None)
        }
        fn lost(&mut self) -> u64 {
            std::mem::take(&mut self.1)
        }
    }
    let (done, does) = channel();
    let sink: Box<dyn Sink> = Box::new(Resting(done, 3));
    let metrics = metrics();
    let (outlets, mut ended) =
        Outlets::open(vec![placed("sink.a", sink)], &metrics, || record(0)).unwrap();
    for _ in 0..100 {
        outlets.offer(record(1));
    }
    drop(outlets);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(ended.wait());
    let rests = does.iter().filter(|what| *what == "rest").count();
    assert!(rests >= 100, "{rests} times");
    let text = metrics.text().unwrap();
    assert!(text.contains("portwatch_events_lost_total{where=\"sink.a\"} 3"), "{text}");
}

/// The reader takes a page at the moment at which the agent counts what it has not written.
#[test]
fn what_is_counted_as_unwritten_is_not_written_afterwards() {
    for round in 0..300 {
        let (reader, writer) = pipe().unwrap();
        let writer = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let sink = Table::from(Format::Json).open(writer, anstream::ColorChoice::Never).unwrap();
        let metrics = metrics();
        let (outlets, ended) = Outlets::open(vec![sink], &metrics, || record(0)).unwrap();
        // Each is longer than a page, and all of them than the pipe.
        for outcome in examples() {
            outlets.offer(large(4_000));
            // It is no failed bind.
            outlets.offer(Record::Outcome(Box::new(outcome)));
        }
        for _ in examples().len()..50 {
            outlets.offer(large(4_000));
        }
        drop(outlets);
        let stop = Arc::new(AtomicBool::new(false));
        let reading = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || pages(reader, &stop))
        };
        // Another part of the stream each time.
        thread::sleep(Duration::from_micros(round * 10));
        while !ended.close() {
            thread::yield_now();
        }
        let unwritten = metrics.unfinished();
        stop.store(true, SeqCst);
        let text = reading.join().unwrap();
        // What follows the last line feed is half a line; a short one is the farewell.
        let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        lines.pop();
        let told = lines.iter().filter(|line| line.len() > 4_000).count();
        let unwritten = unwritten.strip_suffix(" in sink.json").map_or(0, |n| n.parse().unwrap());
        assert_eq!(told + unwritten, 50, "round {round}");
    }
}

/// Reads page by page until `stop` is set and the pipe is empty.
fn pages(mut from: PipeReader, stop: &AtomicBool) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        let last = stop.load(SeqCst);
        let mut ready = [PollFd::new(&from, PollFlags::IN)];
        match poll(&mut ready, Some(&Timespec::default())).unwrap() {
            0 if last => return text,
            0 => thread::yield_now(),
            _ => {
                let mut page = [0; 4096];
                match from.read(&mut page).unwrap() {
                    0 => return text,
                    read => text.extend(&page[..read]),
                }
            }
        }
    }
}
