use std::time::Duration;

use bytemuck::Zeroable as _;
use jiff::{SignedDuration, Timestamp};
use portwatch_common::{BindFailure, Followed, flag, followed, followed_flag, stage};

use super::*;
use crate::{
    decode::{RawRecord, record},
    diagnose::diagnose,
    event::{Host, outcome::Became},
    evidence::{Cgroup, Evidence, Supervisor, SupervisorKind},
};

mod bounds;
mod play;

use play::*;

#[test]
fn a_process_that_binds_it_later_has_recovered() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    for ms in [1000, 2000, 3000] {
        play.outcomes.failed(&failed(ms, 7, 80));
    }
    play.does(&binds(3201, 7, 80));
    let outcome = play.is(&id, Became::Recovered);
    assert_eq!((outcome.after_ms, outcome.tries, outcome.process.pid), (3200, 4, 7));
    assert_eq!(outcome.bound, Some(([0, 0, 0, 0], 80).into()));
    play.passes_to(60_000);
    assert_eq!(play.told.len(), 1);
    assert!(play.outcomes.cases.is_empty());
}

#[test]
fn another_port_is_told_when_it_is_clear_that_it_stays_so() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&binds(5, 7, 81));
    play.passes_to(9_000);
    assert_eq!(play.told, []);
    play.passes_to(11_000);
    let outcome = play.is(&id, Became::AnotherPort);
    assert_eq!((outcome.bound.unwrap().port(), outcome.after_ms), (81, 4));
}

/// nginx binds its other ports, tries the first a few times more, and gives up.
#[test]
fn who_gives_up_in_the_end_has_not_moved_to_another_port() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&binds(2, 7, 443));
    (1..5).for_each(|n| play.outcomes.failed(&failed(n * 500, 7, 80)));
    play.does(&exits(2_500, 7, 0x100));
    let outcome = play.is(&id, Became::Exited);
    assert_eq!(outcome.exit.unwrap().status, Some(1));
    assert_eq!((outcome.after_ms, outcome.tries), (2_499, 5));
}

#[test]
fn a_tool_that_is_done_with_another_port_was_not_hurt() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&binds(2, 7, 81));
    play.does(&exits(3, 7, 0));
    play.is(&id, Became::AnotherPort);
}

#[test]
fn one_that_only_asked_and_ended_has_exited() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&exits(400, 7, 9));
    let outcome = play.is(&id, Became::Exited);
    assert_eq!((outcome.exit.unwrap().signal, outcome.exit.unwrap().status), (Some(9), None));
    assert!(outcome.is_harm());
}

#[test]
fn whoever_tries_all_the_time_is_still_failing() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    (1..10).for_each(|n| play.outcomes.failed(&failed(n * 1000, 7, 80)));
    play.passes_to(10_300);
    let outcome = play.is(&id, Became::StillFailing);
    assert_eq!((outcome.after_ms, outcome.tries), (10_000, 10));
}

#[test]
fn whoever_has_stopped_trying_is_running_without() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.outcomes.failed(&failed(1000, 7, 80));
    play.passes_to(10_300);
    play.is(&id, Became::RunningWithout);
}

/// systemd gives it another control group, whose id is another.
#[test]
fn the_next_process_of_the_unit_recovers_it() {
    let mut play = Play::new();
    let first = play.fails(1, 7, 80, service);
    play.does(&exits(50, 7, 0x100));
    assert_eq!(play.told, [], "it is started again");
    let second = play.fails(150, 8, 80, |process| {
        service(process);
        process.cgroup = Some(Cgroup { id: Some(71), path: None });
    });
    let bound = Followed { cgroup_id: 72, ..stranger_binds(300, 9, 80) };
    play.does_in(&bound, Some(Place::Service("other.service".to_owned(), None)));
    assert_eq!(play.told, []);
    play.does_in(&bound, the_service());
    let outcome = play.is(&first, Became::Recovered);
    assert_eq!((outcome.after_ms, outcome.tries, outcome.process.pid), (299, 2, 9));
    assert_eq!(outcome.unit.as_ref().unwrap().restarted, Some(true));
    play.is(&second, Became::Recovered);
}

#[test]
fn a_service_that_stays_down_has_exited() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, service);
    play.does(&exits(50, 7, 0x100));
    play.passes_to(10_300);
    let outcome = play.is(&id, Became::Exited);
    assert_eq!((outcome.after_ms, outcome.unit.as_ref().unwrap().restarted), (49, None));
}

/// A shell's loop, or a supervisor that runs other programs as well.
#[test]
fn the_next_child_of_a_supervisor_recovers_it() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, |process| {
        let shell = Supervisor { pid: Some(6), ..Supervisor::bare(SupervisorKind::Shell) };
        (process.supervisor, process.ppid) = (Some(shell), Some(6));
    });
    play.does(&exits(3, 7, 0x100));
    assert_eq!(play.told, [], "it is started again");
    let mut other = Followed { parent: 6, ..stranger_binds(500, 8, 80) };
    other.comm[0] = b'x';
    play.does(&other);
    assert_eq!(play.told, [], "another program");
    play.does(&Followed { parent: 6, ..stranger_binds(500, 9, 80) });
    assert_eq!(play.is(&id, Became::Recovered).process.pid, 9);
}

/// cron goes on; its job has exited.
#[test]
fn what_a_service_has_launched_has_no_successor() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, |process| process.unit = Some("cron.service".to_owned()));
    play.does(&exits(3, 7, 0x100));
    play.is(&id, Became::Exited);
}

#[test]
fn without_anything_that_starts_it_again_a_stranger_is_one() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&stranger_binds(5, 9, 80));
    play.passes_to(10_300);
    play.is(&id, Became::RunningWithout);
}

#[test]
fn a_server_that_goes_on_in_a_child_has_not_ended() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&forks(2, 7, 8));
    play.does(&exits(3, 7, 0));
    assert_eq!(play.told, []);
    play.does(&of_child(7, binds(900, 8, 80)));
    assert_eq!(play.is(&id, Became::Recovered).process.pid, 8);
}

#[test]
fn a_child_that_ends_as_well_is_the_end() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&forks(2, 7, 8));
    play.does(&exits(3, 7, 0));
    play.does(&of_child(7, exits(900, 8, 0x200)));
    let outcome = play.is(&id, Became::Exited);
    assert_eq!((outcome.exit.unwrap().status, outcome.after_ms), (Some(2), 899));
}

#[test]
fn who_fails_with_helpers_running_has_ended_unless_one_of_them_has_it() {
    let mut play = Play::new();
    let [id, other] = [(7, 80), (17, 81)].map(|(pid, port)| play.fails(1, pid, port, nobody));
    play.does(&forks(2, 7, 8));
    play.does(&forks(2, 17, 18));
    play.does(&exits(3, 7, 0x100));
    play.does(&exits(3, 17, 0x100));
    assert_eq!(play.told, []);
    play.does(&of_child(17, binds(900, 18, 81)));
    assert_eq!(play.is(&other, Became::Recovered).process.pid, 18);
    play.passes_to(10_300);
    assert_eq!(play.is(&id, Became::Exited).after_ms, 2);
}

#[test]
fn a_child_from_before_the_failure_may_have_it() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&Followed { parent: 6, ..stranger_binds(5, 8, 80) });
    assert_eq!(play.told, []);
    play.does(&Followed { parent: 7, ..stranger_binds(6, 9, 80) });
    assert_eq!(play.is(&id, Became::Recovered).process.pid, 9);
}

#[test]
fn a_child_that_still_tries_is_still_failing() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&forks(2, 7, 8));
    play.does(&exits(3, 7, 0));
    let own = play.fails(4, 8, 80, nobody);
    (1..10).for_each(|n| play.outcomes.failed(&failed(n * 1000, 8, 80)));
    play.passes_to(10_300);
    assert_eq!(play.is(&id, Became::StillFailing).tries, 11);
    play.is(&own, Became::StillFailing);
}

/// A child's end that nobody saw shows when it is looked at.
#[test]
fn children_are_looked_at_in_the_end() {
    let mut play = Play { running: Some(Vec::new()), ..Play::new() };
    let id = play.fails(1, 7, 80, nobody);
    play.does(&forks(2, 7, 8));
    play.does(&exits(3, 7, 0));
    play.passes_to(10_300);
    play.is(&id, Became::Exited);
}

#[test]
fn lost_records_are_a_gap() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.unseen = 1;
    play.passes_to(10_300);
    assert_eq!(play.is(&id, Became::RunningWithout).gaps.len(), 1);
}

/// The kernel skips a program now and then.
#[test]
fn an_end_that_was_not_seen_shows_in_the_end() {
    let mut play = Play { running: Some(vec![8]), ..Play::new() };
    let [gone, there] = [7, 8].map(|pid| play.fails(1, pid, 80, nobody));
    play.passes_to(10_300);
    let outcome = play.is(&gone, Became::Exited);
    assert_eq!((outcome.exit, outcome.gaps.len()), (None, 1));
    assert_eq!(play.is(&there, Became::RunningWithout).gaps, []);
}

#[test]
fn what_is_not_seen_is_said() {
    let mut play = Play::blind(Blind { exits: true, forks: true });
    let id = play.fails(1, 7, 80, nobody);
    play.passes_to(10_300);
    assert_eq!(play.is(&id, Became::RunningWithout).gaps.len(), 1);
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    play.does(&Followed { flags: followed_flag::MORE_FORKS, ..exits(3, 7, 0) });
    assert_eq!(play.told, [], "a child may have it yet");
    play.passes_to(10_300);
    let outcome = play.is(&id, Became::Exited);
    assert_eq!(outcome.gaps.len(), 1, "{outcome:?}");
}

#[test]
fn each_event_of_a_storm_has_its_outcome() {
    let mut play = Play::new();
    let event = play.is_seen(1, 7, 80, nobody);
    let first = play.is_told(event.clone());
    (1..150).for_each(|n| play.outcomes.failed(&failed(n * 100, 7, 80)));
    play.passes_to(10_300);
    play.is(&first, Became::StillFailing);
    let second = play.is_summed_up(&event, 99, 100, 10_000);
    play.does(&binds(14_950, 7, 80));
    assert_eq!(play.is(&second, Became::Recovered).after_ms, 14_850);
    let third = play.is_summed_up(&event, 49, 10_100, 14_900);
    let outcome = play.is(&third, Became::Recovered);
    assert_eq!((outcome.after_ms, outcome.tries), (4_850, 49), "at once");
}

#[test]
fn who_loses_it_again_is_another_matter() {
    let mut play = Play::new();
    let first = play.fails(1, 7, 80, nobody);
    play.does(&binds(100, 7, 80));
    let second = play.fails(5_000, 7, 80, nobody);
    play.is(&first, Became::Recovered);
    play.passes_to(16_000);
    play.is(&second, Became::RunningWithout);
}

#[test]
fn addresses_are_not_taken_for_one_another() {
    let mut play = Play::new();
    let id = play.fails(1, 7, 80, nobody);
    let loopback = |port| {
        let mut one = binds(5, 7, port);
        one.address[..4].copy_from_slice(&[127, 0, 0, 1]);
        one
    };
    play.does(&loopback(80));
    play.does(&loopback(81));
    play.does(&Followed { protocol: 17, ..binds(6, 7, 80) });
    play.does(&Followed { netns_cookie: 2, ..binds(6, 7, 80) });
    play.passes_to(10_300);
    play.is(&id, Became::RunningWithout);
}

/// A server that has found another port is ended by its user before the window is over.
#[test]
fn who_has_found_another_port_is_not_hurt_by_a_signal_to_end() {
    for (code, became) in [
        (15, Became::AnotherPort),
        (2, Became::AnotherPort),
        (143 << 8, Became::AnotherPort),
        (11, Became::Exited),
        (1 << 8, Became::Exited),
    ] {
        let mut play = Play::new();
        let id = play.fails(1, 7, 80, nobody);
        play.does(&binds(5, 7, 81));
        play.does(&exits(6_000, 7, code));
        play.is(&id, became);
        // What has found none is.
        let mut play = Play::new();
        let id = play.fails(1, 7, 80, nobody);
        play.does(&exits(6_000, 7, code));
        play.is(&id, Became::Exited);
    }
}
