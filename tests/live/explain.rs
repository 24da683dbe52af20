//! `portwatch explain`: what it says of a port, and that the kernel agrees.

use std::process::Command;

use portwatch_tests::{
    command::{Said, portwatch, run},
    helper::Helper,
    kernel,
    netns::Netns,
    op::{Op, Socket, tcp, udp},
    patience,
    process::{Process, code as code_of},
    scene::Scene,
    skip::needs,
    stream::Silence,
};
use rustix::process::Signal;
use serde_json::{Value, json};

mod search;

const ADDRESS: &str = "127.0.0.1:8080";

fn explain(arguments: &[&str]) -> Command {
    portwatch(&[&["explain"], arguments].concat())
}

/// The answers in `netns` as JSON, and the exit code.
fn answers(netns: &Netns, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut command = explain(&[arguments, &["--format", "json"]].concat());
    netns.confine(&mut command);
    read(&run(&mut command))
}

fn read(said: &Said) -> (i32, Vec<Value>) {
    let lines = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (said.code, lines)
}

/// The one answer, with its exit code.
fn answer(netns: &Netns, arguments: &[&str]) -> (i32, Value) {
    let (code, answers) = answers(netns, arguments);
    assert_eq!(answers.len(), 1, "{answers:?}");
    (code, answers[0].clone())
}

/// The text for a person.
fn told(netns: &Netns, arguments: &[&str]) -> Said {
    let mut command = explain(arguments);
    netns.confine(&mut command);
    run(&mut command)
}

/// Whether `expected` is a part of `actual`.
fn includes(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => expected
            .iter()
            .all(|(key, value)| actual.get(key).is_some_and(|actual| includes(actual, value))),
        (Value::Array(actual), Value::Array(expected)) => {
            expected.iter().zip(actual).all(|(expected, actual)| includes(actual, expected))
                && actual.len() >= expected.len()
        }
        _ => actual == expected,
    }
}

#[track_caller]
fn assert_includes(actual: &Value, expected: &Value) {
    assert!(includes(actual, expected), "{expected}\nis not in\n{actual:#}");
}

/// Whether the kernel lets a helper bind and listen, to hold the answer against.
fn passes(netns: &Netns, socket: Socket) -> bool {
    Helper::new(netns).runs([socket]).code == Some(0)
}

#[test]
fn a_listener() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).reuseaddr().listening()]);
    let (code, answer) = answer(&netns, &[ADDRESS]);
    assert_eq!(code, 3);
    assert_includes(
        &answer,
        &json!({
            "schema": "portwatch/explanation/v1",
            "asked": {"protocol": "tcp", "address": "127.0.0.1", "port": 8080},
            "bind": {"without_reuseaddr": "refused", "with_reuseaddr": "refused"},
            "netns": netns.told(),
            "sockets": [{"state": "LISTEN", "holders": [{"pid": holder.pid(), "comm": "binder"}]}],
            "diagnosis": {
                "cause": "listener",
                "holder": {"pid": holder.pid()},
                "confidence": "likely",
            },
        }),
    );
    for reuse in [false, true] {
        let socket = if reuse { tcp(ADDRESS).reuseaddr() } else { tcp(ADDRESS) };
        assert!(!passes(&netns, socket.listening()));
    }
    let said = told(&netns, &["8080"]);
    assert_eq!(said.code, 3, "{said}");
    for part in [
        "HELD  tcp port 8080  ",
        &format!("binder[{}]", holder.pid()),
        "blocked by  LISTEN 127.0.0.1:8080",
        "fails with and without SO_REUSEADDR",
        &format!("kill {}", holder.pid()),
    ] {
        assert!(said.stdout.contains(part), "no `{part}`\n{said}");
    }
}

#[test]
fn a_free_port_is_an_answer_too() {
    let netns = Netns::new();
    let (code, answer) = answer(&netns, &["8080"]);
    assert_eq!(code, 0);
    assert_includes(
        &answer,
        &json!({
            "asked": {"address": null},
            "bind": {"without_reuseaddr": "passes", "with_reuseaddr": "passes"},
            "sockets": [],
            "diagnosis": null,
        }),
    );
    let said = told(&netns, &["8080"]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.starts_with("FREE  tcp port 8080  "), "{said}");
    // Of Docker's own table it speaks only where Docker is.
    let users = std::fs::read_dir("/run/user").into_iter().flatten().flatten();
    let sockets = users.map(|user| user.path().join("docker.sock"));
    let docker = sockets.chain(["/run/docker.sock".into()]).any(|socket| socket.exists());
    let note = said.stdout.contains("docker ps --filter publish=8080");
    assert_eq!(note, docker, "{said}");
}

/// What only one kind of bind passes. The kernel does not say what the old sockets had; the
/// agent saw it.
#[test]
fn time_wait() {
    let seen = kernel::is_at_least(5, 12);
    let lists_bound = kernel::is_at_least(6, 8);
    for old_reuses in [true, false] {
        let scene = Scene::new();
        let netns = &scene.netns;
        let old = if old_reuses { tcp(ADDRESS).reuseaddr() } else { tcp(ADDRESS) };
        scene.helper().succeeds([old.leaving_time_wait(3)]);
        let (code, answer) = answer(netns, &[ADDRESS]);
        assert_eq!(code, 3);
        let with_reuseaddr = match old_reuses {
            false if seen => "refused",
            true if seen && lists_bound => "passes",
            _ => "unknown",
        };
        assert_includes(
            &answer,
            &json!({
                "bind": {"without_reuseaddr": "refused", "with_reuseaddr": with_reuseaddr},
                "time_wait": {"count": 3},
                "diagnosis": {
                    "cause": "time_wait.app_lacks_reuseaddr",
                    "holder": {"class": "no_process", "pid": null},
                },
            }),
        );
        let remaining = answer["time_wait"]["max_remaining_ms"].as_u64().unwrap();
        assert!((1..=62_000).contains(&remaining), "{answer}");
        assert!(!passes(netns, tcp(ADDRESS).listening()));
        assert_eq!(passes(netns, tcp(ADDRESS).reuseaddr().listening()), old_reuses);
    }
}

/// With an agent's record it is known what the old sockets had, and whose they were.
#[test]
fn who_was_there_a_minute_ago() {
    if needs("what_was_before", (5, 14)) {
        return;
    }
    let scene = Scene::new();
    let left = scene.helper().succeeds([tcp(ADDRESS).reuseaddr().leaving_time_wait(1)]);
    let (code, answer) = answer(&scene.netns, &["--reuseaddr", ADDRESS]);
    assert_ne!(code, 3, "{answer}");
    assert_includes(
        &answer,
        &json!({
            "time_wait": {"count": 1, "left_by": {"pid": left.pid, "program": "binder"}},
            "last_holder": {"process": {"pid": left.pid}},
        }),
    );
    let said = told(&scene.netns, &[ADDRESS]);
    assert!(said.stdout.contains(&format!("binder[{}]", left.pid)), "{said}");
    assert!(said.stdout.contains("\n  before "), "{said}");
}

#[test]
fn another_address_is_not_in_the_way() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp("127.0.0.2:8080").listening()]);
    let (code, one) = answer(&netns, &[ADDRESS]);
    assert_eq!(code, 0, "{one}");
    assert_includes(&one, &json!({"sockets": [{"holders": [{"pid": holder.pid()}]}]}));
    assert!(passes(&netns, tcp(ADDRESS).listening()));
    let (code, any) = answer(&netns, &["8080"]);
    assert_eq!(code, 3, "{any}");
    assert_includes(&any, &json!({"diagnosis": {"cause": "wildcard"}}));
    let said = told(&netns, &[ADDRESS]);
    assert!(said.stdout.contains("also here "), "{said}");
}

#[test]
fn both_families() {
    let netns = Netns::new();
    let _holder = Helper::new(&netns).holds([tcp("[::]:8080").listening()]);
    for (asked, cause) in [("8080", "listener"), ("0.0.0.0:8080", "dual_stack")] {
        let (code, answer) = answer(&netns, &[asked]);
        assert_eq!(code, 3, "{answer}");
        assert_includes(&answer, &json!({"diagnosis": {"cause": cause}}));
    }
    assert!(!passes(&netns, tcp("0.0.0.0:8080").listening()));
}

#[test]
fn bound_and_not_listening() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS)]);
    let (code, answer) = answer(&netns, &[ADDRESS]);
    if answer["gaps"].as_array().unwrap().iter().any(|gap| gap["what"] == "sockets.bound") {
        // The kernel shows it from 6.8 on.
        return;
    }
    assert_eq!(code, 3, "{answer}");
    assert_includes(
        &answer,
        &json!({"diagnosis": {"cause": "bound_not_listening", "holder": {"pid": holder.pid()}}}),
    );
}

#[test]
fn udp_and_several_ports() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([udp(ADDRESS)]);
    let (code, answers) = answers(&netns, &["--udp", "8080", "8081", "127.0.0.1:53"]);
    assert_eq!(code, 3);
    let bare =
        |answer: &Value| json!([answer["asked"]["port"], answer["bind"]["without_reuseaddr"]]);
    let told: Vec<_> = answers.iter().map(bare).collect();
    assert_eq!(told, [json!([8080, "refused"]), json!([8081, "passes"]), json!([53, "passes"])]);
    assert_includes(
        &answers[0],
        &json!({"diagnosis": {"cause": "udp", "holder": {"pid": holder.pid()}}}),
    );
    // The same number is free for TCP.
    assert_eq!(answer(&netns, &["8080"]).0, 0);
}

#[test]
fn another_network_namespace() {
    let name = format!("portwatch-explain-{}", std::process::id());
    let (own, netns) = (Netns::new(), Netns::named(&name));
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    assert_eq!(answer(&own, &["8080"]).0, 0);
    let (pid, path) = (holder.pid().to_string(), format!("/run/netns/{name}"));
    for place in [&name, &pid, &path] {
        let (code, answer) = answer(&own, &["8080", "--netns", place]);
        assert_eq!(code, 3, "{place}");
        assert_includes(
            &answer,
            &json!({
                "netns": {"inode": netns.inode, "name": name},
                "diagnosis": {"holder": {"pid": holder.pid()}},
            }),
        );
    }
    let (code, everywhere) = answers(&own, &["8080", "--netns", "all"]);
    assert_eq!(code, 3);
    // Other tests have holders of their own.
    assert!(everywhere.iter().any(|answer| answer["netns"]["inode"] == netns.inode));
    assert!(everywhere.iter().any(|answer| answer["netns"]["inode"] == own.inode));
    run(&mut explain(&["8080", "--netns", "no-such-namespace"])).is_error(2);
}

/// The article's worked example: the old release that somebody has left in a login
/// session, with a client connected. Asked, stopped by the printed command, waited for.
#[test]
fn three_commands() {
    let netns = Netns::new();
    let old = Helper::new(&netns).holds([tcp(ADDRESS).reuseaddr().listening()]);
    let _client = Helper::new(&netns).holds([Op::Connect(ADDRESS.parse().unwrap())]);
    let (code, answer) = answer(&netns, &["--reuseaddr", ADDRESS]);
    assert_eq!(code, 3, "{answer}");
    let moves = answer["diagnosis"]["moves"].as_array().unwrap();
    let stop = moves.iter().find_map(|step| step["command"].as_str()).unwrap();
    assert_eq!(stop, format!("kill {}", old.pid()));

    let mut wait = portwatch(&["wait", ADDRESS, "--free", "--reuseaddr"]);
    netns.confine(&mut wait);
    let waiting = Process::start(&mut wait, Signal::KILL).unwrap();
    let told = waiting.stderr.wait_for_text(patience(), "LISTEN");
    assert!(!matches!(told, Err(Silence::Ended | Silence::TimedOut)), "{}", waiting.said());
    assert!(Command::new("sh").args(["-c", stop]).status().unwrap().success());
    let mut waiting = waiting;
    assert_eq!(code_of(waiting.wait_or_panic(patience())), 0, "{}", waiting.said());
    assert!(passes(&netns, tcp(ADDRESS).reuseaddr().listening()));
}

/// An interface behind the address, in every form that people copy: only what is bound
/// there, or to none, is in the way.
#[test]
fn on_one_interface() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).on_loopback().listening()]);
    for target in ["127.0.0.1%lo:8080", "127.0.0.1%1:8080", "*%lo:8080"] {
        let (code, answer) = answer(&scene.netns, &[target]);
        assert_eq!(code, 3, "{target}: {answer}");
        assert_eq!(answer["asked"]["device"], json!({"index": 1, "name": "lo"}), "{answer}");
    }
    for target in ["[fe80::1%lo]:8080", "[fe80::1]%lo:8080"] {
        let said = told(&scene.netns, &[target]);
        assert_eq!(said.code, 0, "{said}");
        assert!(said.stdout.contains("FREE  tcp [fe80::1%lo]:8080"), "{said}");
    }
    let mut wait = portwatch(&["wait", "127.0.0.1%lo:8080", "--listening", "--timeout", "0"]);
    scene.netns.confine(&mut wait);
    let said = run(&mut wait);
    said.is_result();
    assert!(said.stdout.starts_with("tcp 127.0.0.1%lo:8080 is listening"), "{said}");
}
