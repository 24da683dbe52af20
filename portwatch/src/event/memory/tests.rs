use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use super::*;
use crate::{
    event::read,
    evidence::{Cgroup, Fact, State},
    redact::{Redaction, Unredacted},
};

thread_local! {
    /// What this thread has allocated and not freed.
    static TAKEN: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As glibc rounds up: eight bytes of its own, and steps of sixteen.
fn chunk(layout: Layout) -> isize {
    (layout.size() + 8).next_multiple_of(16).max(32).cast_signed()
}

fn count(bytes: isize) {
    // A thread that ends frees its own memory.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + bytes));
}

// SAFETY: the system's allocator does all the work; only a number in a thread-local cell
// changes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(chunk(layout));
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-chunk(layout));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// What `make` leaves allocated.
fn taken_by<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let before = TAKEN.get();
    let made = make();
    (made, usize::try_from(TAKEN.get() - before).unwrap())
}

fn golden() -> Event {
    let line = include_str!("../../../../tests/golden/listener.jsonl");
    let Ok(Record::BindFailure(event)) = read::record(line.trim_end()) else { panic!() };
    *event
}

/// A holder with `many` arguments of one byte.
fn holder(pid: u32, many: usize) -> Process {
    let short = || Some("a".to_owned());
    Process {
        pid,
        comm: short(),
        exe: short(),
        user: short(),
        unit: short(),
        session: short(),
        cgroup: Some(Cgroup { id: Some(1), path: short() }),
        cmdline: Redaction::default().cmdline(&Unredacted::new(b"x\0".repeat(many), false)),
        ..Process::default()
    }
}

fn held_by(processes: u32, arguments: usize) -> Event {
    let mut event = golden();
    event.sockets.truncate(1);
    event.sockets[0].holders = (0..processes).map(|pid| holder(pid, arguments)).collect();
    event
}

fn of_sockets(many: u16) -> Event {
    let mut event = golden();
    event.sockets = (0..many)
        .map(|port| Socket::bare(State::Bound, ([127, 0, 0, 1], port).into(), Some(1)))
        .collect();
    event
}

fn of_gaps(many: usize) -> Event {
    let mut event = golden();
    event.gaps = (0..many).map(|_| Gap::new(Fact::Other("a".to_owned()), "b")).collect();
    event
}

/// However little of it is written: a budget in these bytes limits memory.
#[test]
fn a_record_takes_no_more_than_is_reckoned() {
    for (what, event) in [
        ("as they are", golden()),
        ("many arguments", held_by(108, 256)),
        ("many holders", held_by(300, 0)),
        ("many sockets", of_sockets(500)),
        ("many gaps", of_gaps(500)),
    ] {
        // A copy has no spare capacity, least of all a command line of its own.
        let line = serde_json::to_string(&event).unwrap();
        let (kept, taken) = taken_by(|| read::record(&line).unwrap());
        let reckoned = of(&kept).unwrap();
        assert!(taken <= reckoned && reckoned <= 2 * taken, "{what}: {taken} of {reckoned}");
    }
}
