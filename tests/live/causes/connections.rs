//! Causes in which nothing listens: connections, and what they leave behind.

use portwatch_tests::{
    cgroup::Slice,
    op::{Leaving, Op, tcp},
    scene::Scene,
};
use serde_json::json;

use super::{ADDRESS, Expected, assert_cause, other_service, refused};

#[test]
fn time_wait_of_a_program_that_lacks_reuseaddr() {
    let scene = Scene::new();
    scene.helper().succeeds([tcp(ADDRESS).leaving_time_wait(3)]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = assert_cause(
        &scene,
        &refused,
        "time_wait.app_lacks_reuseaddr",
        &Expected {
            class: "no_process",
            refused_by: ["TIME-WAIT 127.0.0.1:8080", "this bind does not set it"],
            advice: "set SO_REUSEADDR",
        },
    );
    // The helper is written in Rust, and so is the advice.
    assert!(event.advice(0).contains("set_reuse_address"), "{event}");
    // Of the namespace it has no name to enter it by; elsewhere it is portwatch wait.
    let wait = ["sleep", "portwatch wait 127.0.0.1:8080 --free"];
    assert!(wait.iter().any(|wait| event.advice(1).contains(wait)), "{event}");
}

#[test]
fn time_wait_of_sockets_that_lacked_it() {
    let scene = Scene::new();
    scene.helper().succeeds([tcp(ADDRESS).leaving_time_wait(3)]);
    let refused = scene.helper().is_refused(tcp(ADDRESS).reuseaddr());
    assert_cause(
        &scene,
        &refused,
        "time_wait.old_lacked_reuseaddr",
        &Expected {
            class: "no_process",
            refused_by: ["TIME-WAIT 127.0.0.1:8080", "does not set SO_REUSEADDR"],
            advice: "wait once",
        },
    );
}

/// The kernel alone brings them to their end, in one way or the other.
#[test]
fn closing() {
    for (leaving, state, advice) in [
        (Leaving::FinWait1(1), "FIN-WAIT-1", "tcp_orphan_retries"),
        (Leaving::FinWait2(1), "FIN-WAIT-2", "tcp_fin_timeout"),
    ] {
        let scene = Scene::new();
        let _clients = scene.helper().holds([tcp(ADDRESS).leaving(leaving)]);
        let refused = scene.helper().is_refused(tcp(ADDRESS));
        assert_cause(
            &scene,
            &refused,
            "closing",
            &Expected { class: "no_process", refused_by: [state, "without SO_REUSEADDR"], advice },
        );
    }
}

#[test]
fn connections_remain() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let held = tcp(ADDRESS).leaving(Leaving::Accepted(3));
    let holder = other_service(&scene, &slice, held);
    // With the option on this side, only the holder is left to mend it.
    let refused = refused(&scene, &slice, tcp(ADDRESS).reuseaddr());
    let event = assert_cause(
        &scene,
        &refused,
        "connections_remain",
        &Expected {
            class: "other_service",
            refused_by: ["ESTABLISHED 127.0.0.1:8080", "does not set SO_REUSEADDR"],
            advice: "systemctl stop payments.service",
        },
    );
    // Each of them is listed: they might be of several processes.
    let connection = json!({"origin": "accepted", "holders": [{"pid": holder.pid()}]});
    event.includes(&json!({
        "connections": {"established": 3},
        "sockets": [connection, connection, connection],
    }));
}

/// A worker of the same service goes on, and this program lacks the option that
/// would let it bind beside it.
#[test]
fn connections_remain_of_an_older_instance() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).reuseaddr().leaving(Leaving::Accepted(1))]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "diagnosis": {
            "cause": "connections_remain",
            "holder": {"class": "old_instance", "pid": holder.pid()},
        },
    }));
    assert!(event.advice(0).contains("set SO_REUSEADDR"), "{event}");
    assert!(event.advice(1).contains(&format!("kill {}", holder.pid())), "{event}");
}

/// The kernel gave the port to somebody's call, and then the service wanted it.
#[test]
fn client_port() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let _server = scene.helper().holds([tcp("127.0.0.1:80").listening()]);
    let client = other_service(&scene, &slice, Op::Connect("127.0.0.1:80".parse().unwrap()));
    let port = client.outcome(0).port;
    let refused = refused(&scene, &slice, tcp(&format!("127.0.0.1:{port}")).reuseaddr());
    let event = assert_cause(
        &scene,
        &refused,
        "client_port",
        &Expected {
            class: "other_service",
            refused_by: ["ESTABLISHED", "does not set SO_REUSEADDR"],
            advice: &format!("sysctl -w net.ipv4.ip_local_reserved_ports={port}"),
        },
    );
    let connected = format!("has a connection from 127.0.0.1:{port} to 127.0.0.1:80");
    assert!(event.text("/diagnosis/summary").contains(&connected), "{event}");
}

#[test]
fn self_connect() {
    let scene = Scene::new();
    let address = "127.0.0.1:40000";
    let client = scene.helper().holds([Op::SelfConnect(address.parse().unwrap())]);
    let refused = scene.helper().is_refused(tcp(address));
    let event = assert_cause(
        &scene,
        &refused,
        "self_connect",
        &Expected {
            class: "old_instance",
            refused_by: [
                "ESTABLISHED 127.0.0.1:40000 with peer 127.0.0.1:40000",
                "without SO_REUSEADDR",
            ],
            advice: &format!("kill {}", client.pid()),
        },
    );
    assert!(event.advice(1).contains("ip_local_reserved_ports=40000"), "{event}");
}
