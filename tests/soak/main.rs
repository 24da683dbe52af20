//! The agent for a long time on a machine that does not rest: a thousand refused
//! binds each second, by processes that come and go in network namespaces that come
//! and go. Afterwards every refusal is accounted for, the agent is as small as it
//! was, has no more descriptors, and is right.
//!
//! `PORTWATCH_SOAK_SECONDS` says for how long (`cargo xtask soak`).

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
};

mod stream;

use stream::Agent;

/// No other test has this port, so that all that is told is this one's.
const ADDRESS: &str = "127.0.0.1:41873";
/// One process every so often, each refused so many times.
const TICK: Duration = Duration::from_millis(50);
const BINDS: u32 = 50;
/// Namespaces that are there at the same time, and how soon another takes the place
/// of the oldest.
const NAMESPACES: usize = 8;
const TICKS_PER_NAMESPACE: u32 = 4;

/// Until as much is kept in mind as will be: some windows of the default length.
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
fn it_stays_as_it_was() {
    let seconds = std::env::var("PORTWATCH_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(10));
    let mut agent = Agent::start(&["run", "--format", "json", "--port", "41873"]);
    let mut places: VecDeque<Place> = (0..NAMESPACES).map(|_| Place::new()).collect();
    let begin = Instant::now();
    let (mut ticks, mut made) = (0u32, NAMESPACES);
    // What grows at the beginning only is no leak: equal failures are kept in mind for a
    // window or two. A short run is not looked at for that.
    let warm = (time / 4).max(WARM).min(time);
    let mut samples: Vec<Sample> = Vec::new();
    while begin.elapsed() < time {
        let place = &places[ticks as usize % NAMESPACES];
        let storm = Op::Storm(ADDRESS.parse().unwrap(), BINDS);
        assert_eq!(Helper::new(&place.netns).runs([storm]).last().refused, BINDS);
        ticks += 1;
        agent.forget();
        if ticks.is_multiple_of(TICKS_PER_NAMESPACE) {
            places.pop_front();
            places.push_back(Place::new());
            made += 1;
        }
        let due = samples.len() as u32;
        if time > warm && begin.elapsed() >= warm + (time - warm) * due / 20 {
            samples.push(Sample::of(agent.pid()));
        }
        thread::sleep((begin + TICK * ticks).saturating_duration_since(Instant::now()));
    }
    samples.push(Sample::of(agent.pid()));
    let took = begin.elapsed();
    let sizes: Vec<_> = samples.iter().map(|sample| sample.resident_kib).collect();
    say(&format!("soak: RSS in KiB, since it is warm: {sizes:?}"));
    let refused = u64::from(ticks * BINDS);

    // It is still right. Numbers of processes have come round by now.
    agent.forget();
    let place = places.back().unwrap();
    let last = Helper::new(&place.netns).is_refused(tcp(ADDRESS));
    let event = agent.wait_for(last.pid);
    assert_eq!(event["diagnosis"]["holder"]["pid"], place.holder.pid(), "{event:#}");

    let told = agent.end();
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap();
    say(&format!(
        "soak: {refused} refusals in {took:.0?} ({:.0}/s) by {ticks} processes in {made} \
         namespaces: {} told, {} counted as lost; RSS {} KiB when warm, {} at \
         the end, {} at most; {} descriptors, {} at the end",
        refused as f64 / took.as_secs_f64(),
        told.events,
        told.losses,
        first.resident_kib,
        last.resident_kib,
        most(|sample| sample.resident_kib),
        first.descriptors,
        last.descriptors,
    ));
    // What was lost in the kernel may have been of other ports.
    let own = told.events + told.losses - told.losses_of_anybody;
    assert!(own <= refused + 1 && own + told.losses_of_anybody > refused, "unaccounted for");
    // Where the machine is so busy that it cannot follow, its queues are full.
    let grown = if told.losses == 0 { 1024 } else { 20 * 1024 };
    assert!(most(|sample| sample.resident_kib) <= first.resident_kib + grown, "{samples:?}");
    assert!(most(|sample| sample.resident_kib) < 48 * 1024, "{samples:?}");
    // A netlink socket is kept for each of the last namespaces.
    assert!(most(|sample| sample.descriptors) <= first.descriptors + 2 * NAMESPACES as u64);
}

/// How large the agent is.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident_kib: u64,
    descriptors: u64,
}

impl Sample {
    /// As it is now; descriptors are what is in /proc/PID/fd.
    fn of(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { resident_kib: resident_kib(pid), descriptors: descriptors as u64 }
    }
}
