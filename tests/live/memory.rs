//! What a busy machine does leaves the agent as small as it was.

use portwatch_tests::{
    agent::Agent,
    helper::Helper,
    op::{Op, tcp},
    process::resident_kib,
    say,
    scene::Scene,
    skip::in_guest,
};
use serde_json::json;

/// Sockets come and go on every port, and the record of who has them makes room
/// for the newest.
#[test]
fn a_million_binds_leave_it_flat() {
    let scene = Scene::alone();
    // Emulation is many times slower; more than the record has room for, all the same.
    let binds = if in_guest() { 100_000 } else { 1_000_000 };
    // What others are refused meanwhile would take memory of its own.
    let last_port = Op::last_port_of_churn(binds / 10).to_string();
    let agent = Agent::start(&["run", "--format", "json", "--port", &last_port]).unwrap();
    scene.helper().succeeds([Op::Churn(binds / 10)]);
    let before = resident_kib(agent.pid());
    for _ in 1..10 {
        scene.helper().succeeds([Op::Churn(binds / 10)]);
    }
    let last = scene.helper().succeeds([Op::Churn(binds / 10)]);
    let after = resident_kib(agent.pid());
    say(&format!("memory: RSS {before} KiB, after {binds} more binds {after} KiB"));
    assert!(after <= before + 1024, "{before} KiB became {after} KiB");

    // And what is newest is still on record.
    let port = last.last().port;
    assert_eq!(port.to_string(), last_port);
    let holder = Helper::new(&scene.netns).holds([tcp(&format!("127.0.0.1:{port}"))]);
    let refused = scene.helper().is_refused(tcp(&format!("127.0.0.1:{port}")));
    agent.event_of(&refused).includes(&json!({
        "last_holder": {"process": {"pid": holder.pid()}},
    }));
}
