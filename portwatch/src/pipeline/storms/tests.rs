use jiff::SignedDuration;
use portwatch_common::{BindFailure, flag, stage};
use proptest::prelude::*;

use super::*;
use crate::{
    decode::decode,
    diagnose::diagnose,
    event::{Event, Host},
    evidence::{Evidence, Process},
};

const WINDOW: Duration = Duration::from_secs(10);

/// The failures of a test: which process fails at which port, and when.
struct Play {
    storms: Storms,
    begin: Instant,
    told: Vec<Event>,
}

impl Play {
    fn new() -> Self {
        Self { storms: Storms::new(WINDOW), begin: Instant::now(), told: Vec::new() }
    }

    fn fails(&mut self, ms: u64, pid: u32, port: u16, unit: Option<&str>) {
        self.is_seen(ms, pid, port, |process| process.unit = unit.map(str::to_owned));
    }

    /// As the pipeline does it.
    fn is_seen(&mut self, ms: u64, pid: u32, port: u16, look: impl FnOnce(&mut Process)) {
        let raw = raw(ms, pid, port);
        let now = self.begin + Duration::from_millis(ms);
        if !self.storms.absorb(&raw, now) {
            self.told.extend(self.storms.admit(&raw, event(&raw, look), now));
        }
        self.storms.ended(now, |event| self.told.push(event));
    }

    /// The kernel side has only counted some of the same source.
    fn counted(&mut self, raw: &RawFailure, count: u64, last_ns: u64) -> bool {
        self.storms.count(&CountedBy::Source(raw.source), raw.tenant(), count, last_ns)
    }

    fn ends(mut self) -> Vec<Event> {
        self.told.extend(self.storms.all());
        self.told
    }
}

fn raw(ms: u64, pid: u32, port: u16) -> RawFailure {
    let mut record: BindFailure = bytemuck::Zeroable::zeroed();
    record.at_ns = ms * 1_000_000 + 1;
    record.attempt.family = 2;
    record.attempt.protocol = 6;
    record.attempt.stage = stage::BIND;
    record.attempt.flags = flag::REUSE_KNOWN;
    record.attempt.port = port;
    record.task.pid = pid;
    record.task.tid = pid;
    decode(bytemuck::bytes_of(&record)).unwrap()
}

fn event(raw: &RawFailure, look: impl FnOnce(&mut Process)) -> Event {
    let mut process = Process { pid: raw.task.pid, ..Process::default() };
    look(&mut process);
    let mut evidence = Evidence::refused(process, Vec::new());
    evidence.failure.port = raw.bind.port;
    let nanoseconds = SignedDuration::from_nanos(i64::try_from(raw.bind.at_ns).unwrap());
    evidence.time = Timestamp::UNIX_EPOCH + nanoseconds;
    let diagnosis = diagnose(&evidence);
    Event::new(&Host::default(), raw, evidence, diagnosis)
}

fn counts(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.count).collect()
}

#[test]
fn a_process_that_fails_again_is_counted() {
    let mut play = Play::new();
    for ms in 0..100 {
        play.fails(ms, 7, 80, None);
    }
    assert_eq!(counts(&play.told), [1], "the first at once");
    let events = play.ends();
    assert_eq!(counts(&events), [1, 99]);
    let (first, last) = (events[1].first_seen.unwrap(), events[1].last_seen.unwrap());
    assert_eq!((first.as_millisecond(), last.as_millisecond()), (1, 99));
    assert_ne!(events[0].id, events[1].id);
}

/// The first enrichment finds it in /proc, the later ones do not.
#[test]
fn a_process_that_is_gone_meanwhile_is_still_the_same() {
    let mut play = Play::new();
    play.is_seen(0, 7, 80, |process| {
        process.exe = Some("/usr/bin/app".to_owned());
        process.started = Some(Timestamp::UNIX_EPOCH);
    });
    for ms in 1..4 {
        play.is_seen(ms, 7, 80, |process| process.comm = Some("app".to_owned()));
    }
    assert_eq!(counts(&play.ends()), [1, 3]);
}

#[test]
fn a_window_that_ends_is_told_and_the_next_begins() {
    let mut play = Play::new();
    for second in 0..35 {
        play.fails(second * 1000, 7, 80, None);
    }
    assert_eq!(counts(&play.told), [1, 10, 10, 10]);
    assert_eq!(counts(&play.ends()).iter().sum::<u64>(), 35);
}

#[test]
fn after_a_quiet_window_it_is_news_again() {
    let mut play = Play::new();
    play.fails(0, 7, 80, None);
    play.fails(25_000, 8, 81, None);
    play.fails(25_001, 7, 80, None);
    assert_eq!(counts(&play.told), [1, 1, 1]);
}

#[test]
fn a_crash_loop_of_a_unit_is_told_eight_times_and_then_counted() {
    let mut play = Play::new();
    for pid in 0..100u32 {
        play.fails(u64::from(pid) * 10, 1000 + pid, 80, Some("app.service"));
    }
    let events = play.ends();
    assert_eq!(counts(&events), [[1; 8].as_slice(), &[92]].concat());
    // An enrichment each eighth of a second is enough for similar processes.
    assert!(events[8].process.pid >= 1087, "the evidence is old: {}", events[8].process.pid);
}

#[test]
fn equal_programs_without_a_unit_may_be_different_peoples() {
    let mut play = Play::new();
    for pid in 0..60u32 {
        play.fails(u64::from(pid), 1000 + pid, 80, None);
    }
    assert_eq!(counts(&play.ends()), [1; 60]);
}

#[test]
fn what_the_kernel_side_counted_belongs_to_what_was_looked_at() {
    let mut play = Play::new();
    play.fails(0, 7, 80, None);
    assert!(play.counted(&raw(0, 7, 80), 1_000_000, 5_000_000_000));
    assert!(!play.counted(&raw(0, 8, 81), 1, 0), "nothing is known of it");
    let events = play.ends();
    assert_eq!(counts(&events), [1, 1_000_000]);
    assert_eq!(events[1].last_seen.unwrap().as_second(), 5);
}

#[test]
fn other_processes_that_the_kernel_side_counted_are_counted_together() {
    let mut play = Play::new();
    play.fails(0, 7, 80, None);
    let counted = |storms: &mut Storms, raw: &RawFailure| {
        storms.count(&CountedBy::Crowd(raw.crowd()), raw.tenant(), 500, 5_000_000_000)
    };
    assert!(counted(&mut play.storms, &raw(0, 8, 80)));
    assert!(!counted(&mut play.storms, &raw(0, 8, 81)), "nothing is known of them");
    assert_eq!(counts(&play.ends()), [1, 500]);
}

#[test]
fn a_crash_loop_without_a_unit_costs_a_look_each_eighth_of_a_second() {
    let mut play = Play::new();
    let mut looked = 0;
    for pid in 0..10_000u32 {
        let raw = raw(u64::from(pid), 1000 + pid, 80);
        let now = play.begin + Duration::from_millis(u64::from(pid));
        if !play.storms.absorb(&raw, now) {
            looked += 1;
            play.told.extend(play.storms.admit(&raw, event(&raw, |_| ()), now));
        }
    }
    assert!(looked <= 64 + 82, "{looked} looks");
    assert_eq!(counts(&play.ends()).iter().sum::<u64>(), 10_000);
}

#[test]
fn many_groups_of_one_user_leave_room_for_anothers() {
    let mut play = Play::new();
    let mut of = |ms: u64, user: u32, pid: u32, port: u16| {
        let mut raw = raw(ms, pid, port);
        raw.task.user = user;
        let now = play.begin + Duration::from_millis(ms);
        if !play.storms.absorb(&raw, now) {
            play.told.extend(play.storms.admit(&raw, event(&raw, |_| ()), now));
        }
        raw
    };
    let victim = of(0, 1001, 7, 80);
    for port in 1000..3000 {
        of(1, 1000, 8, port);
        // A displaced group has a count.
        of(1, 1000, 8, port);
    }
    assert!(play.storms.groups.len() <= MOST_GROUPS && play.storms.sources.len() <= MOST_SOURCES);
    assert!(play.counted(&victim, 300_000, 5_000_000_000), "the victim's group is there");
    let events = play.ends();
    assert_eq!(counts(&events).iter().sum::<u64>(), 1 + 300_000 + 4000);
}

#[test]
fn large_events_of_one_user_make_room_before_anothers_small_one() {
    let mut play = Play::new();
    let mut of = |ms: u64, user: u32, pid: u32, port: u16, bytes: usize| {
        let mut raw = raw(ms, pid, port);
        raw.task.user = user;
        let now = play.begin + Duration::from_millis(ms);
        if !play.storms.absorb(&raw, now) {
            let event = event(&raw, |process| process.comm = Some("x".repeat(bytes)));
            play.told.extend(play.storms.admit(&raw, event, now));
        }
        raw
    };
    let victim = of(0, 1001, 7, 80, 0);
    for port in 1000..1160 {
        of(1, 1000, 8, port, 128 << 10);
        of(2, 1000, 8, port, 128 << 10);
    }
    let taken: usize = play.storms.groups.values().map(|group| group.size).sum();
    assert!((MOST_BYTES / 2..=MOST_BYTES).contains(&taken), "{taken} bytes");
    assert!(play.counted(&victim, 300_000, 5_000_000_000), "the victim's group is there");
    assert_eq!(counts(&play.ends()).iter().sum::<u64>(), 1 + 300_000 + 320);
}

#[test]
fn without_a_window_each_is_told() {
    let mut play = Play { storms: Storms::new(Duration::ZERO), ..Play::new() };
    for ms in 0..50 {
        play.fails(ms, 7, 80, None);
    }
    assert_eq!(counts(&play.ends()), [1; 50]);
}

proptest! {
    /// Whatever fails when and where, each failed bind is in exactly one count.
    #[test]
    fn nothing_is_lost_and_nothing_told_twice(
        // A thread makes one call at a time.
        failures in proptest::collection::vec((1u64..3_000, 1u32..30, 1u16..8, any::<bool>()), 0..600)
    ) {
        let mut play = Play::new();
        let mut ms = 0;
        for &(pause, pid, port, unit) in &failures {
            ms += pause;
            play.fails(ms, pid, port, unit.then_some("app.service"));
        }
        let events = play.ends();
        let mut ids: Vec<_> = events.iter().map(|event| &event.id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), events.len(), "an id is used twice");
        prop_assert_eq!(counts(&events).iter().sum::<u64>(), failures.len() as u64);
    }
}
