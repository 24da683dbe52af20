//! After work on a busy machine, the agent is as small as before.

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

/// Sockets open and close on every port, and newer ones replace older ones in the owner
/// record.
#[test]
fn a_million_binds_leave_it_flat() {
    let scene = Scene::alone();
    // Emulation is many times slower; still more than the record can hold.
    let binds = if in_guest() { 100_000 } else { 1_000_000 };
    // Others' failed binds meanwhile would take memory too.
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

    // The newest is still recorded.
    let port = last.last().port;
    assert_eq!(port.to_string(), last_port);
    let holder = Helper::new(&scene.netns).holds([tcp(&format!("127.0.0.1:{port}"))]);
    let refused = scene.helper().is_refused(tcp(&format!("127.0.0.1:{port}")));
    agent.event_of(&refused).includes(&json!({
        "last_holder": {"process": {"pid": holder.pid()}},
    }));
}
