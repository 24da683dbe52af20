//! Calls that never reach a socket, answered by a seccomp filter: whatever the same thread has
//! done before without a system call of its own, they cause no event, no owner, and no loss.

use std::os::unix::net::UnixStream;

use portwatch_tests::{
    agent::Agent,
    helper::EADDRINUSE,
    http::get,
    kernel,
    op::{Op, Stage, tcp},
    scene::Scene,
    skip::skip,
};
use serde_json::json;
use tempfile::TempDir;

use crate::protocols::ring_lacks;

const ADDRESS: &str = "127.0.0.1:8080";
const FILTERED: u16 = 98;

/// Ways in which a thread's bind is done outside of its bind calls.
fn other_ways() -> [Op; 2] {
    [tcp(ADDRESS).through_ring().into(), Op::RingLater(ADDRESS.parse().unwrap())]
}

/// An attempt of an io_uring is not the one that the filter has answered.
#[test]
fn an_attempt_of_an_io_uring_is_not_another_calls() {
    if let Some(lacks) = ring_lacks() {
        return skip("io_uring", &lacks);
    }
    // Not another program's attempt either: the fexit set reports the io_uring's own.
    if portwatch_tests::agent::agent().hooks_functions() {
        return;
    }
    for way in other_ways() {
        let scene = Scene::new();
        let forger = scene.helper().runs([way, Op::Denied(FILTERED), tcp(ADDRESS).into()]);
        assert_eq!(forger.outcomes[0].stage, Stage::Done, "{forger:?}");
        assert_eq!(forger.last().errno, EADDRINUSE, "{forger:?}");

        let _holder = scene.helper().holds([tcp("127.0.0.1:8081")]);
        let refused = scene.helper().is_refused(tcp("127.0.0.1:8081"));
        scene.nothing_but(&refused);
    }
}

/// A call that never happened does not bind the socket that the io_uring could not bind.
#[test]
fn an_attempt_of_an_io_uring_makes_nobody_an_owner() {
    if let Some(lacks) = ring_lacks() {
        return skip("io_uring", &lacks);
    }
    for way in other_ways() {
        let scene = Scene::new();
        let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
        let forger = scene.helper().runs([way, Op::Denied(0), tcp(ADDRESS).into()]);
        assert_eq!(forger.outcomes[0].errno, EADDRINUSE, "{forger:?}");
        assert_eq!(forger.last().stage, Stage::Done, "{forger:?}");

        let refused = scene.helper().is_refused(tcp(ADDRESS));
        scene.event_of(&refused).includes(&json!({
            "last_holder": {"process": {"pid": holder.pid()}},
        }));
    }
}

/// Calls that a filter answers are no failed binds: they are counted separately, and not as
/// losses.
#[test]
fn what_a_filter_answers_is_no_loss() {
    const CALLS: u32 = 20_000;
    let scene = Scene::new();
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("metrics");
    let endpoint = format!("unix:{}", socket.display());
    let agent =
        Agent::start(&["run", "--format", "json", "--port", "8080", "--metrics", &endpoint])
            .unwrap();
    let metric = |name: &str| -> u64 {
        let text = get(UnixStream::connect(&socket).unwrap(), "/metrics").body;
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.next().unwrap_or_else(|| panic!("no {name}\n{text}")).parse().unwrap()
    };
    const MISSING: &str = "portwatch_events_lost_total{where=\"attempt_missing\"}";
    let storm = Op::Storm(ADDRESS.parse().unwrap(), CALLS);
    let filtered = scene.helper().runs([Op::Denied(FILTERED), storm]);
    assert_eq!(filtered.last().refused, CALLS);

    // An event that came after them, and the counts that were read with it.
    let _holder = scene.helper().holds([tcp(ADDRESS)]);
    agent.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    agent.look(|log| {
        assert!(log.events_in(&scene.netns).all(|event| event.pid != Some(filtered.pid)));
    });
    // Before Linux 5.11 it is not known whether calls are filtered.
    let told_apart = agent.hooks() != "tracepoint" || kernel::is_at_least(5, 11);
    // Others on the machine may lose some.
    assert!(!told_apart || metric(MISSING) < u64::from(CALLS) / 2, "{}", metric(MISSING));
    let reads_family = !agent.talk().contains("locked down");
    if agent.hooks() == "tracepoint" && told_apart && reads_family {
        let apart = metric("portwatch_not_attempted_total");
        assert!(apart >= u64::from(CALLS), "{apart}");
    }
}
