//! Every cause that can be made on one machine, made for real: the cause, who is
//! behind it, the socket and the rule, and the first move. What each test
//! captured is kept in `golden/events`.

use std::sync::Arc;

use portwatch_tests::{
    cgroup::Slice,
    event::Event,
    golden,
    helper::{Attempt, Holder},
    op::{Op, Socket, Stage, tcp, udp},
    programs::Alias,
    scene::Scene,
};
use serde_json::json;

mod connections;

const ADDRESS: &str = "127.0.0.1:8080";

/// What an event must say beside its cause.
struct Expected<'a> {
    class: &'a str,
    /// Parts of the socket's name and of the rule.
    refused_by: [&'a str; 2],
    /// A part of the first move.
    advice: &'a str,
}

/// Asserts all of it and keeps the event.
#[track_caller]
fn assert_cause(scene: &Scene, refused: &Attempt, cause: &str, expected: &Expected) -> Arc<Event> {
    let event = scene.event_of(refused);
    assert_diagnosis(&event, cause, expected);
    event
}

#[track_caller]
fn assert_diagnosis(event: &Event, cause: &str, expected: &Expected) {
    event.is_explained().includes(&json!({
        "diagnosis": {"cause": cause, "holder": {"class": expected.class}},
    }));
    let reason = ["socket", "rule"].map(|key| {
        let pointer = format!("/diagnosis/refused_by/0/{key}");
        event.text(&pointer).to_owned()
    });
    for (part, whole) in expected.refused_by.iter().zip(&reason) {
        assert!(whole.contains(part), "no `{part}` in `{whole}`\n{event}");
    }
    let advice = event.advice(0);
    assert!(advice.contains(expected.advice), "no `{}` in `{advice}`\n{event}", expected.advice);
    assert!(event.text("/diagnosis/summary").chars().count() < 200, "{event}");
    golden::keep(&format!("cause-{cause}"), event);
}

/// Another service holds it, in a unit of its own.
fn other_service(scene: &Scene, slice: &Slice, held: impl Into<Op>) -> Holder {
    let (unit, payments) = (slice.group("payments.service"), Alias::new("payments-api"));
    scene.helper().within(&unit).run_as(&payments).holds([held.into()])
}

fn refused(scene: &Scene, slice: &Slice, wanted: Socket) -> Attempt {
    scene.helper().within(&slice.group("app.service")).is_refused(wanted)
}

#[test]
fn listener() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let _holder = other_service(&scene, &slice, tcp(ADDRESS).reuseaddr().listening());
    let refused = refused(&scene, &slice, tcp(ADDRESS).reuseaddr());
    let event = assert_cause(
        &scene,
        &refused,
        "listener",
        &Expected {
            class: "other_service",
            refused_by: ["LISTEN 127.0.0.1:8080", "SO_REUSEADDR does not help against a listener"],
            advice: "move app.service or payments.service to another port",
        },
    );
    event.includes(&json!({"diagnosis": {"judgement": {"safe_to_stop": "no"}}}));
    assert!(event.advice(1).contains("systemctl stop payments.service"), "{event}");
}

/// Like systemd-resolved's 127.0.0.53:53 and a name server for all addresses.
#[test]
fn wildcard() {
    for (held, wanted, advice) in [
        ("127.0.0.53:53", "0.0.0.0:53", "bind the one address that is needed (not 127.0.0.53)"),
        (
            "0.0.0.0:53",
            "127.0.0.53:53",
            "bind the program that has the port to the one address that it needs",
        ),
    ] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let _holder = other_service(&scene, &slice, tcp(held).listening());
        let refused = refused(&scene, &slice, tcp(wanted));
        assert_cause(
            &scene,
            &refused,
            "wildcard",
            &Expected { class: "other_service", refused_by: ["LISTEN", "is listening"], advice },
        );
    }
}

#[test]
fn dual_stack() {
    for (held, wanted, whose) in [
        ("127.0.0.1:8080", "[::]:8080", "this program's IPv6 socket"),
        ("[::]:8080", "0.0.0.0:8080", "the existing IPv6 socket"),
    ] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let _holder = other_service(&scene, &slice, tcp(held).listening());
        let refused = refused(&scene, &slice, tcp(wanted));
        assert_cause(
            &scene,
            &refused,
            "dual_stack",
            &Expected {
                class: "other_service",
                refused_by: [held, "is listening"],
                advice: "both use port 8080",
            },
        );
        let event = scene.event_of(&refused);
        let second = event.advice(1);
        assert!(second.contains(&format!("set IPV6_V6ONLY on {whose}")), "{event}");
    }
}

#[test]
fn reuseport_of_two_users() {
    let scene = Scene::new();
    let shared = tcp(ADDRESS).reuseport().listening();
    let _holder = scene.helper().by(1001).holds([shared.clone()]);
    let refused = scene.helper().by(1002).is_refused(shared);
    assert_cause(
        &scene,
        &refused,
        "reuseport.uid",
        &Expected {
            // A name is no proof between users.
            class: "other_service",
            refused_by: ["LISTEN", "belongs to another user"],
            advice: "run both as the same user: the existing socket belongs to uid 1001, this one to uid 1002",
        },
    );
}

#[test]
fn reuseport_on_one_side() {
    for (held, wanted, rule, lacks) in [
        (tcp(ADDRESS).reuseport(), tcp(ADDRESS), "and this bind does not", "binder"),
        (tcp(ADDRESS), tcp(ADDRESS).reuseport(), "does not set SO_REUSEPORT", "payments-api"),
    ] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let _holder = other_service(&scene, &slice, held.listening());
        let refused = refused(&scene, &slice, wanted);
        assert_cause(
            &scene,
            &refused,
            "reuseport.missing",
            &Expected {
                class: "other_service",
                refused_by: ["LISTEN", rule],
                advice: &format!("set SO_REUSEPORT in {lacks}"),
            },
        );
    }
}

#[test]
fn bound_not_listening() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS)]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    if event.text("/host/hooks") != "tracepoint" || super::bound_only::kernel_shows_them() {
        assert_diagnosis(
            &event,
            "bound_not_listening",
            &Expected {
                class: "old_instance",
                refused_by: ["BOUND 127.0.0.1:8080", "without SO_REUSEADDR"],
                advice: &format!("kill {}", holder.pid()),
            },
        );
    }
}

#[test]
fn listen_race() {
    let scene = Scene::new();
    let mut winner = scene.helper().holds([tcp(ADDRESS).reuseaddr()]);
    let mut loser = scene.helper().holds([tcp(ADDRESS).reuseaddr()]);
    assert_eq!(winner.does(Op::Listen(0)).stage, Stage::Done);
    assert_eq!(loser.does(Op::Listen(0)).stage, Stage::Listen);
    let event = scene.agent.wait_for("the listen", |event| event.pid == Some(loser.pid()));
    assert_diagnosis(
        &event,
        "listen_race",
        &Expected {
            class: "old_instance",
            refused_by: ["LISTEN 127.0.0.1:8080", "SO_REUSEADDR"],
            advice: &format!("kill {}", winner.pid()),
        },
    );
}

/// One side is bound to a device, whichever it is.
#[test]
fn device() {
    for (held, wanted, lacks) in [
        (tcp(ADDRESS).on_loopback(), tcp(ADDRESS), "set SO_BINDTODEVICE in this program"),
        (tcp(ADDRESS), tcp(ADDRESS).on_loopback(), "set SO_BINDTODEVICE in the listening program"),
    ] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let _holder = other_service(&scene, &slice, held.listening());
        let refused = refused(&scene, &slice, wanted);
        let event = assert_cause(
            &scene,
            &refused,
            "device",
            &Expected {
                class: "other_service",
                refused_by: ["LISTEN", "is listening"],
                advice: lacks,
            },
        );
        assert!(event.at("/diagnosis/notes").to_string().contains("bound to lo"), "{event}");
    }
}

#[test]
fn udp_socket() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let _holder = other_service(&scene, &slice, udp("127.0.0.1:5300"));
    let refused = refused(&scene, &slice, udp("127.0.0.1:5300"));
    let rule = match scene.agent.sees_options_of_udp4() {
        true => "without SO_REUSEADDR",
        false => "which of the two does not is not known",
    };
    let event = assert_cause(
        &scene,
        &refused,
        "udp",
        &Expected {
            class: "other_service",
            refused_by: ["UNCONN 127.0.0.1:5300", rule],
            advice: "both use port 5300",
        },
    );
    event.includes(&json!({"sockets": [{"port_chosen_by": "program"}]}));
}

/// Another program asked for any port and has got the one of a service; or for this one.
#[test]
fn listener_on_a_port_that_the_kernel_chose() {
    for (asked, chosen_by) in [("127.0.0.1:0", "kernel"), ("127.0.0.1:40001", "program")] {
        let scene = Scene::new();
        let slice = Slice::new();
        scene.netns.set("ipv4/ip_local_port_range", "40001 40001");
        let holder = other_service(&scene, &slice, tcp(asked).listening());
        scene.netns.set("ipv4/ip_local_port_range", "32768 60999");
        let refused = refused(&scene, &slice, tcp("127.0.0.1:40001"));
        let event = scene.event_of(&refused);
        event.is_explained().includes(&json!({
            "sockets": [{"port_chosen_by": chosen_by}],
            "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
        }));
        let reserves = event.advice(0).contains("sysctl -w net.ipv4.ip_local_reserved_ports=40001");
        assert_eq!(reserves, chosen_by == "kernel", "{event}");
        if reserves {
            golden::keep("cause-listener-any-port", &event);
        }
    }
}

/// The range is ten ports, and one process has them all.
#[test]
fn port_exhausted() {
    let (any_tcp, any_udp) = (tcp("127.0.0.1:0"), udp("127.0.0.1:0"));
    for (held, wanted, state, helps) in [
        (any_tcp.clone().listening(), any_tcp, "LISTEN", "set IP_BIND_ADDRESS_NO_PORT"),
        (any_udp.clone(), any_udp, "UNCONN", "use fewer sockets at a time"),
    ] {
        let (scene, slice) = (Scene::new(), Slice::new());
        scene.netns.set("ipv4/ip_local_port_range", "40000 40009");
        let holder = other_service(&scene, &slice, held.repeated(10));
        let refused = refused(&scene, &slice, wanted);
        let event = scene.event_of(&refused);
        event.includes(&json!({
            "failure": {"port": 0},
            "ephemeral": {"low": 40000, "high": 40009, "usage": {
                "ports": 10,
                "states": {state: 10},
                "most_by": {"process": {"pid": holder.pid()}},
            }},
            "diagnosis": {
                "cause": "port_exhausted",
                "holder": {"class": "other_service", "pid": holder.pid()},
            },
        }));
        let summary = event.text("/diagnosis/summary");
        let used = "10 of the 10 ports from 40000 to 40009 are in use, mostly";
        assert!(summary.contains(&format!("{used} {state}")), "{event}");
        assert!(event.advice(0).contains("for leaked sockets"), "{event}");
        assert!(event.advice(1).contains(helps), "{event}");
        if state == "LISTEN" {
            golden::keep("cause-port_exhausted", &event);
        }
    }
}
