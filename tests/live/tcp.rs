//! A TCP listener blocks: the request, the failing process, and the blocking socket.

use portwatch_tests::{
    op::tcp,
    scene::{Scene, process_of},
};
use serde_json::json;

#[test]
fn ipv4_listener() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let held = holder.outcome(0);

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "count": 1,
        "failure": {
            "stage": "bind",
            "errno": "EADDRINUSE",
            "protocol": "tcp",
            "family": "ipv4",
            "address": "127.0.0.1",
            "port": 8080,
            "device": null,
            "reuseaddr": false,
            "reuseport": false,
            "v6only": null,
            "uid": 0,
            "cookie": scene.cookie_of(&refused),
        },
        "process": process_of(&refused),
        "sockets": [{
            "state": "LISTEN",
            "local": "127.0.0.1:8080",
            "remote": null,
            "inode": held.inode,
            "cookie": held.cookie,
            "uid": 0,
            "device": null,
            "expires_ms": null,
            "holders": [{"pid": holder.pid(), "ppid": std::process::id(), "comm": "binder"}],
        }],
        "time_wait": {"count": 0, "max_remaining_ms": null},
        "diagnosis": {
            "cause": "listener",
            "holder": {"class": "old_instance", "pid": holder.pid(), "comm": "binder"},
        },
    }));
}

#[test]
fn ipv6_listener() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp("[::1]:8080").v6only().listening()]);
    let refused = scene.helper().is_refused(tcp("[::1]:8080").v6only());

    scene.event_of(&refused).is_explained().includes(&json!({
        "failure": {
            "stage": "bind",
            "protocol": "tcp",
            "family": "ipv6",
            "address": "::1",
            "port": 8080,
            "v6only": true,
            "cookie": scene.cookie_of(&refused),
        },
        "process": process_of(&refused),
        "sockets": [{"state": "LISTEN", "local": "[::1]:8080", "v6only": true}],
        "diagnosis": {
            "cause": "listener",
            "holder": {"class": "old_instance", "pid": holder.pid()},
        },
    }));
}

/// The failing socket's options decide the cause, so each must be reported.
#[test]
fn options_of_the_refused_socket() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("[::1]:8080").listening()]);
    let plain = tcp("[::1]:8080");
    for (socket, option) in [
        (plain.clone().reuseaddr(), "reuseaddr"),
        (plain.clone().reuseport(), "reuseport"),
        (plain.v6only(), "v6only"),
    ] {
        let refused = scene.helper().is_refused(socket);
        let mut expected = json!({"reuseaddr": false, "reuseport": false});
        expected[option] = json!(true);
        scene.event_of(&refused).is_explained().includes(&json!({"failure": expected}));
    }
}

#[test]
fn another_user_is_refused() {
    let scene = Scene::new();
    let holder = scene.helper().by(1001).holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().by(1002).is_refused(tcp("127.0.0.1:8080"));

    scene.event_of(&refused).is_explained().includes(&json!({
        "failure": {"uid": 1002},
        "process": {"pid": refused.pid, "uid": 1002},
        "sockets": [{"uid": 1001, "holders": [{"pid": holder.pid(), "uid": 1001}]}],
        "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
    }));
}

#[test]
fn wildcard_against_specific() {
    for (held, wanted) in [("127.0.0.1:53", "0.0.0.0:53"), ("0.0.0.0:53", "127.0.0.1:53")] {
        let scene = Scene::new();
        let holder = scene.helper().holds([tcp(held).listening()]);
        let refused = scene.helper().is_refused(tcp(wanted));

        let event = scene.event_of(&refused);
        event.is_explained().includes(&json!({"diagnosis": {"cause": "wildcard"}}));
        event.includes(&json!({
            "failure": {"address": wanted.trim_end_matches(":53"), "port": 53},
            "sockets": [{"local": held}],
            "diagnosis": {"holder": {"pid": holder.pid()}},
        }));
    }
}

#[test]
fn dual_stack_against_ipv4() {
    for (held, wanted) in [("[::]:8080", "127.0.0.1:8080"), ("127.0.0.1:8080", "[::]:8080")] {
        let scene = Scene::new();
        let holder = scene.helper().holds([tcp(held).listening()]);
        let refused = scene.helper().is_refused(tcp(wanted));

        let event = scene.event_of(&refused);
        event.is_explained().includes(&json!({"diagnosis": {"cause": "dual_stack"}}));
        event.includes(&json!({"diagnosis": {"holder": {"pid": holder.pid()}}}));
    }
}

#[test]
fn bound_device_is_told() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080").on_loopback());

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({"diagnosis": {"cause": "device"}}));
    event.includes(&json!({
        "failure": {"device": {"index": 1, "name": "lo"}},
        "diagnosis": {"holder": {"pid": holder.pid()}},
    }));
}

/// Times come from different clocks, and must be consistent.
#[test]
fn times_are_told() {
    let before = jiff::Timestamp::now();
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let event = scene.event_of(&refused);

    let time = |pointer| -> jiff::Timestamp {
        event.text(pointer).parse().unwrap_or_else(|e| panic!("{pointer}: {e}\n{event}"))
    };
    // /proc counts in hundredths of a second, and the boot time is rounded too.
    let rounding = jiff::SignedDuration::from_millis(50);
    let happened = time("/time");
    assert!(before - rounding <= happened && happened <= jiff::Timestamp::now() + rounding);
    let started = time("/process/started");
    assert!(before - rounding <= started && started <= happened + rounding, "{event}");
    let held_since = time("/sockets/0/holders/0/started");
    assert!(before - rounding <= held_since && held_since <= started + rounding, "{event}");
}

#[test]
fn host_is_told() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let uname = rustix::system::uname();

    scene.event_of(&refused).includes(&json!({
        "host": {
            "hostname": uname.nodename().to_str().unwrap(),
            "kernel": uname.release().to_str().unwrap(),
            "boot_id": boot_id.trim(),
        },
    }));
}

/// Function exits see the socket at which the kernel's check stopped; with tracepoints it can
/// only be inferred.
#[test]
fn confidence_fits_the_hooks() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").reuseaddr().listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));

    let event = scene.event_of(&refused);
    let confidence = if event.text("/host/hooks") != "tracepoint" { "certain" } else { "likely" };
    event.is_explained().includes(&json!({"diagnosis": {"confidence": confidence}}));
    if confidence == "certain" {
        // What sock_diag does not report is read from that socket as well.
        event.includes(&json!({"sockets": [{"reuseaddr": true, "reuseport": false}]}));
    }
}

/// Pid and start time together identify a process across events, so the start time must not
/// depend on the time of the enrichment.
#[test]
fn a_start_is_the_same_in_every_event() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let starts: std::collections::BTreeSet<String> = (0..5)
        .map(|_| {
            let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
            let event = scene.event_of(&refused);
            event.text("/sockets/0/holders/0/started").to_owned()
        })
        .collect();
    assert_eq!(starts.len(), 1, "{starts:?}");
}
