//! What this kernel answers to the helper program, without an agent. The live tests depend on
//! it, so a failure here explains theirs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic fails the test and says where"
)]

use portwatch_tests::{
    cgroup::Slice,
    helper::{EADDRINUSE, Helper},
    netns::Netns,
    op::{Op, Stage, tcp, udp},
    programs::Alias,
};

#[test]
fn a_listener_refuses_another() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp("127.0.0.1:0").listening()]);
    let port = holder.outcome(0).port;
    assert_ne!(port, 0);
    let address = format!("127.0.0.1:{port}");
    let refused = Helper::new(&netns).is_refused(tcp(&address).repeated(20));
    assert_eq!(refused.last().refused, 20);
    assert_eq!(refused.last().stage, Stage::Bind);
    drop(holder);
    Helper::new(&netns).succeeds([tcp(&address)]);
}

#[test]
fn a_vanishing_helper_says_nothing() {
    let netns = Netns::new();
    let _holder = Helper::new(&netns).holds([tcp("[::1]:8080").listening()]);
    let refused = Helper::new(&netns).vanishing().runs([tcp("[::1]:8080")]);
    assert_eq!((refused.code, refused.outcomes.len()), (Some(EADDRINUSE), 0));
}

#[test]
fn time_wait_refuses_unless_both_sides_reuse() {
    for (old, new, errno) in [
        (false, false, EADDRINUSE),
        (true, false, EADDRINUSE),
        (false, true, EADDRINUSE),
        (true, true, 0),
    ] {
        let netns = Netns::new();
        let mut left = tcp("127.0.0.1:8080").leaving_time_wait(3);
        left.reuseaddr = old;
        Helper::new(&netns).succeeds([left]);
        let mut wanted = tcp("127.0.0.1:8080").listening();
        wanted.reuseaddr = new;
        let tried = Helper::new(&netns).runs([wanted]);
        assert_eq!(tried.last().errno, errno, "old {old}, new {new}");
    }
}

#[test]
fn the_second_listen_of_two_reuseaddr_binds_is_refused() {
    let netns = Netns::new();
    let bound = tcp("127.0.0.1:8080").reuseaddr();
    let mut first = Helper::new(&netns).holds([bound.clone()]);
    let mut second = Helper::new(&netns).holds([bound]);
    assert_eq!(first.does(Op::Listen(0)).errno, 0);
    let outcome = second.does(Op::Listen(0));
    assert_eq!((outcome.stage, outcome.errno), (Stage::Listen, EADDRINUSE));
}

#[test]
fn udp_unix_and_reuseport() {
    let netns = Netns::new();
    let _udp = Helper::new(&netns).holds([udp("127.0.0.1:53")]);
    Helper::new(&netns).is_refused(udp("0.0.0.0:53"));
    let name = || Op::Unix("portwatch-harness".to_owned());
    let _unix = Helper::new(&netns).holds([name()]);
    Helper::new(&netns).is_refused(name());
    let shared = tcp("127.0.0.1:8080").reuseport().listening();
    let _first = Helper::new(&netns).by(1000).holds([shared.clone()]);
    Helper::new(&netns).by(1000).succeeds([shared.clone()]);
    Helper::new(&netns).by(1001).is_refused(shared);
}

#[test]
fn an_alias_in_a_cgroup_runs() {
    let (netns, slice) = (Netns::new(), Slice::new());
    let (unit, alias) = (slice.group("app-a.service"), Alias::new("payments-api"));
    let holder = Helper::new(&netns).within(&unit).run_as(&alias).holds([tcp("127.0.0.1:80")]);
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", holder.pid())).unwrap();
    assert_eq!(comm, "payments-api\n");
}
