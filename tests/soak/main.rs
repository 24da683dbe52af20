//! Long-running agents on a busy machine: a thousand failed binds each second, by short-lived
//! processes in short-lived network namespaces. One agent's output is read page by page,
//! another's stops for a while; the configuration is reloaded again and again. Afterwards
//! every failed bind is accounted for, the agents are as small as they were, have no more
//! descriptors, have answered all scrapes, report correctly, and end when they are stopped.
//!
//! `PORTWATCH_SOAK_SECONDS` sets the time (`cargo xtask soak`).

#![allow(clippy::print_stderr, reason = "it shows what the agent says")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test and says where"
)]

use std::{
    collections::VecDeque,
    fs, thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    helper::{Helper, Holder},
    netns::Netns,
    op::{Op, tcp},
    process::resident_kib,
    say,
    stream::Manner,
};

mod stream;

use stream::Agent;

/// No other test has this port, so that all records are this one's.
const ADDRESS: &str = "127.0.0.1:41873";
/// Interval between processes, each with this many failed binds.
const TICK: Duration = Duration::from_millis(50);
const BINDS: u32 = 50;
/// Namespaces that exist at the same time, and the interval after which another replaces the
/// oldest.
const NAMESPACES: usize = 8;
const TICKS_PER_NAMESPACE: u32 = 4;

/// An output that is read page by page.
const PAGES: Manner = Manner::Pages(Duration::from_millis(600));
/// Length of a period; in every third one, the other output is not read.
const STOP: Duration = Duration::from_secs(60);
/// Interval between reloads.
const RELOADS: Duration = Duration::from_secs(10);

/// How long an answer to a scrape may take in a long run.
const ANSWERS_WITHIN: Duration = Duration::from_millis(100);
/// How long the end may take with any output (docs/stream.md).
const ENDS_WITHIN: Duration = Duration::from_secs(11);

/// Until the agent's tables are as full as they get: some windows of the default length.
const WARM: Duration = Duration::from_secs(30);

/// A namespace with a server in it.
struct Place {
    holder: Holder,
    netns: Netns,
}

impl Place {
    fn new() -> Self {
        let netns = Netns::new();
        let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
        Self { holder, netns }
    }
}

#[test]
fn they_stay_as_they_were() {
    let seconds = std::env::var("PORTWATCH_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(10));
    // In a short run everything comes sooner.
    let stop = STOP.min(time / 4);
    let reloads = RELOADS.min(time / 4);
    let port = ADDRESS.rsplit(':').next().unwrap();
    let slow = Agent::start(port, PAGES);
    let stopping = Agent::start(port, Manner::Freely);
    let free = Agent::start(port, Manner::Freely);
    let agents = [&slow, &stopping, &free];
    let mut places: VecDeque<Place> = (0..NAMESPACES).map(|_| Place::new()).collect();
    let begin = Instant::now();
    let (mut ticks, mut made) = (0u32, NAMESPACES);
    let (mut stopped, mut reloaded) = (false, 0);
    // Growth at the beginning is no leak: identical failures are kept for a window or two. A
    // short run is not checked for that.
    let warm = (time / 4).max(WARM).min(time);
    let mut samples: Vec<[Sample; 3]> = Vec::new();
    let sample = || agents.map(|agent| Sample::of(agent.pid()));
    while begin.elapsed() < time {
        let place = &places[ticks as usize % NAMESPACES];
        let storm = Op::Storm(ADDRESS.parse().unwrap(), BINDS);
        assert_eq!(Helper::new(&place.netns).runs([storm]).last().refused, BINDS);
        ticks += 1;
        agents.into_iter().for_each(Agent::forget);
        if ticks.is_multiple_of(TICKS_PER_NAMESPACE) {
            places.pop_front();
            places.push_back(Place::new());
            made += 1;
        }
        let stops = begin.elapsed().as_millis() / stop.as_millis() % 3 == 1;
        if stops != stopped {
            stopped = stops;
            stopping.is_read(if stops { Manner::Stuck } else { Manner::Freely });
        }
        if begin.elapsed() >= reloads * (reloaded + 1) {
            reloaded += 1;
            agents.into_iter().for_each(Agent::reloads);
        }
        let due = samples.len() as u32;
        if time > warm && begin.elapsed() >= warm + (time - warm) * due / 20 {
            samples.push(sample());
        }
        thread::sleep((begin + TICK * ticks).saturating_duration_since(Instant::now()));
    }
    samples.push(sample());
    let took = begin.elapsed();
    let refused = u64::from(ticks * BINDS);
    say(&format!(
        "soak: {refused} refusals in {took:.0?} ({:.0}/s) by {ticks} processes in {made} \
         namespaces, {reloaded} times reloaded",
        refused as f64 / took.as_secs_f64(),
    ));

    for sample in &samples {
        let [slow, stopping, free] = sample.map(|agent| agent.resident_kib);
        say(&format!("soak: RSS in KiB: slow {slow}, stopping {stopping}, free {free}"));
    }

    // It still reports correctly. Pids have wrapped around by now.
    free.forget();
    let place = places.back().unwrap();
    let last = Helper::new(&place.netns).is_refused(tcp(ADDRESS));
    let event = free.wait_for(last.pid);
    assert_eq!(event["diagnosis"]["holder"]["pid"], place.holder.pid(), "{event:#}");

    // Stopped while nobody reads.
    stopping.is_read(Manner::Stuck);
    let agents = [("slow", slow), ("stopping", stopping), ("free", free)];
    for (index, (name, agent)) in agents.into_iter().enumerate() {
        let samples: Vec<_> = samples.iter().map(|all| all[index]).collect();
        let ended = agent.end();
        say(&format!(
            "soak, {name}: stdout: {} told, {} lost; capture: {} told, {} lost; {} scrapes, \
             answered within {:.1?}; ended in {:.1?}; at most {} descriptors and {} KiB",
            ended.stdout.events,
            ended.stdout.losses,
            ended.capture.events,
            ended.capture.losses,
            ended.scrapes,
            ended.longest_scrape,
            ended.took,
            Sample::most(&samples).descriptors,
            Sample::most(&samples).resident_kib,
        ));
        let (first, most) = (samples[0], Sample::most(&samples));
        // Includes the one after the storm. Losses in the kernel may have been others'.
        assert!(ended.stdout.accounts_for(refused + 1), "{name}: {:?}", ended.stdout);
        assert!(ended.capture.accounts_for(refused + 1), "{name}: {:?}", ended.capture);
        assert!(ended.took < ENDS_WITHIN, "{name}: {:?}", ended.took);
        assert!(ended.scrapes > 0);
        // A short run is part of the tests, together with other work on the machine.
        assert!(time <= warm || ended.longest_scrape < ANSWERS_WITHIN, "{name} is slow to answer");
        // What is not read is kept, up to a limit. Compressing a segment of the capture takes
        // 3 MiB, which malloc keeps until the next trim: the peaks of both halves have it.
        let kept = if ended.stdout.losses == 0 { 512 } else { 10 * 1024 };
        let (earlier, later) = samples.split_at(samples.len().div_ceil(2));
        let (earlier, later) =
            (Sample::most(earlier), later.iter().map(|it| it.resident_kib).max());
        assert!(later <= Some(earlier.resident_kib + kept), "{name}: {samples:?}");
        assert!(most.resident_kib < 64 * 1024, "{name}: {samples:?}");
        // A netlink socket is kept for each of the last namespaces.
        assert!(most.descriptors <= first.descriptors + 2 * NAMESPACES as u64, "{name}");
    }
}

/// The agent's resource usage.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident_kib: u64,
    descriptors: u64,
}

impl Sample {
    /// Returns the current usage; descriptors are the entries of /proc/PID/fd.
    fn of(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { resident_kib: resident_kib(pid), descriptors: descriptors as u64 }
    }

    /// Returns the maximum of each.
    fn most(samples: &[Self]) -> Self {
        let most = |of: fn(&Self) -> u64| samples.iter().map(of).max().unwrap();
        Self {
            resident_kib: most(|sample| sample.resident_kib),
            descriptors: most(|sample| sample.descriptors),
        }
    }
}
