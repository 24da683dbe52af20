//! What a test of outcomes does: processes that fail, bind, fork and exit at given times.

use super::*;

pub const WINDOW: Duration = Duration::from_secs(10);
pub const MS: u64 = 1_000_000;

/// The outcomes under test, and what they have said so far.
pub struct Play {
    pub outcomes: Outcomes,
    /// Who is running; all others have ended unseen.
    pub running: Option<Vec<u32>>,
    /// Up to when everything has come through the queue.
    pub behind_ms: u64,
    /// Lost records.
    pub unseen: u64,
    pub told: Vec<Outcome>,
    pub events: u64,
}

impl Play {
    pub fn new() -> Self {
        Self::blind(Blind::default())
    }

    pub fn blind(blind: Blind) -> Self {
        let outcomes = Outcomes::new(WINDOW, WINDOW, blind);
        Self {
            outcomes,
            running: None,
            behind_ms: u64::MAX / MS,
            unseen: 0,
            told: Vec::new(),
            events: 0,
        }
    }

    /// A process fails, which is looked into and told.
    pub fn fails(
        &mut self,
        ms: u64,
        pid: u32,
        port: u16,
        look: impl FnOnce(&mut Process),
    ) -> String {
        let event = self.is_seen(ms, pid, port, look);
        self.is_told(event)
    }

    /// One that is looked into.
    pub fn is_seen(
        &mut self,
        ms: u64,
        pid: u32,
        port: u16,
        look: impl FnOnce(&mut Process),
    ) -> Event {
        let raw = failed(ms, pid, port);
        let event = event(&raw, look);
        let group = event.process.cgroup.as_ref().and_then(|cgroup| cgroup.id);
        self.outcomes.open(&raw, &event, group, 0);
        event
    }

    pub fn is_told(&mut self, event: Event) -> String {
        self.events += 1;
        self.told.extend(self.outcomes.told(&event).map(|told| told.outcome));
        event.id
    }

    /// A summary of `count` failures like `event` between these times.
    pub fn is_summed_up(
        &mut self,
        event: &Event,
        count: u64,
        first_ms: u64,
        last_ms: u64,
    ) -> String {
        let id = format!("{}-{last_ms:x}", event.id);
        let (first_seen, last_seen) = (Some(time(first_ms)), Some(time(last_ms)));
        self.is_told(Event { id, count, first_seen, last_seen, ..event.clone() })
    }

    pub fn does(&mut self, raw: &Followed) {
        self.does_in(raw, None);
    }

    pub fn does_in(&mut self, raw: &Followed, place: Option<Place>) {
        let Ok(RawRecord::Followed(raw)) = record(bytemuck::bytes_of(raw)) else { panic!() };
        self.outcomes.followed(&raw, |_| place.clone(), |told| self.told.push(told.outcome));
    }

    pub fn passes_to(&mut self, ms: u64) {
        let running = self.running.clone();
        let look = |pid, _, _| match &running {
            Some(running) if !running.contains(&pid) => Alive::No,
            _ => Alive::Yes,
        };
        let behind_ns = self.behind_ms * MS;
        let waits = |_, due_ns| due_ns > behind_ns;
        self.outcomes.settle(
            ms * MS,
            waits,
            look,
            |_| self.unseen,
            |told| self.told.push(told.outcome),
        );
    }

    /// What became of each, by the event.
    #[track_caller]
    pub fn became(&self, id: &str) -> &Outcome {
        let mut about = self.told.iter().filter(|outcome| outcome.id == id);
        let outcome = about.next().unwrap_or_else(|| panic!("nothing about {id}"));
        assert!(about.next().is_none(), "told twice");
        outcome
    }

    #[track_caller]
    pub fn is(&self, id: &str, became: Became) -> &Outcome {
        let outcome = self.became(id);
        assert_eq!(outcome.outcome, became, "{outcome:?}");
        outcome
    }
}

pub fn time(ms: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_millis(i64::try_from(ms).unwrap())
}

/// A process is followed from its first failed bind on: here always at 1 ms.
pub const SINCE: u64 = MS;

pub fn failed(ms: u64, pid: u32, port: u16) -> RawFailure {
    let mut record: BindFailure = BindFailure::zeroed();
    (record.at_ns, record.watch_ns) = (ms * MS, SINCE);
    record.attempt.family = 2;
    record.attempt.protocol = 6;
    record.attempt.stage = stage::BIND;
    record.attempt.flags = flag::REUSE_KNOWN;
    record.attempt.port = port;
    record.attempt.netns_cookie = 1;
    (record.task.pid, record.task.tid) = (pid, pid);
    crate::decode::decode(bytemuck::bytes_of(&record)).unwrap()
}

pub fn event(raw: &RawFailure, look: impl FnOnce(&mut Process)) -> Event {
    let mut process = Process { pid: raw.task.pid, ..Process::default() };
    process.cgroup = Some(Cgroup { id: Some(70), path: None });
    look(&mut process);
    let mut evidence = Evidence::refused(process, Vec::new());
    evidence.failure.port = raw.bind.port;
    evidence.time = time(raw.bind.at_ns / MS);
    let diagnosis = diagnose(&evidence);
    Event::new(&Host::default(), raw, evidence, diagnosis)
}

/// What a followed process does.
pub fn by(ms: u64, pid: u32, kind: u8) -> Followed {
    let mut one = Followed { kind, pid, at_ns: ms * MS, own_ns: SINCE, ..Followed::zeroed() };
    (one.cgroup_id, one.netns_cookie, one.family, one.protocol) = (70, 1, 2, 6);
    one.stage = stage::BIND;
    one
}

pub fn binds(ms: u64, pid: u32, port: u16) -> Followed {
    Followed { port, ..by(ms, pid, followed::BOUND) }
}

/// The same by one that has not failed itself.
pub fn stranger_binds(ms: u64, pid: u32, port: u16) -> Followed {
    Followed { own_ns: 0, ..binds(ms, pid, port) }
}

pub fn exits(ms: u64, pid: u32, code: u32) -> Followed {
    Followed { value: code, ..by(ms, pid, followed::EXITED) }
}

pub fn forks(ms: u64, pid: u32, child: u32) -> Followed {
    let root = Followed { root: pid, root_ns: SINCE, own_ns: 0, ..by(ms, pid, followed::FORKED) };
    Followed { value: child, ..root }
}

/// The same thing done by a child.
pub fn of_child(root: u32, one: Followed) -> Followed {
    Followed { own_ns: 0, root, root_ns: SINCE, ..one }
}

pub fn nobody(_: &mut Process) {}

pub fn service(process: &mut Process) {
    process.unit = Some("app.service".to_owned());
}

pub fn the_service() -> Option<Place> {
    Some(Place::Service("app.service".to_owned(), None))
}
