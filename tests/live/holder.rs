//! The holder's class, and the suggested actions.

use std::net::SocketAddr;

use portwatch_tests::{
    cgroup::Slice,
    golden,
    netns::Netns,
    op::{Op, tcp},
    programs::Alias,
    scene::Scene,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::json;

const ADDRESS: &str = "127.0.0.1:8080";

/// The same program, older, without a service manager.
#[test]
fn old_instance_without_a_manager() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "process": {"unit": null, "session": null, "container": null, "pod": null},
        "diagnosis": {
            "cause": "listener",
            "holder": {"class": "old_instance", "pid": holder.pid(), "comm": "binder"},
        },
    }));
    assert!(event.advice(0).contains(&format!("kill {}", holder.pid())), "{event}");
}

/// A process of the same unit blocks: the unit is stopped, not the pid.
#[test]
fn old_instance_in_a_unit() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let unit = slice.group("app.service");
    let holder = scene.helper().within(&unit).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&unit).is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    // It is seconds old and of the same unit, so it may be classified as restarted.
    event.is_explained().has_one_of("/diagnosis/holder/class", &["old_instance", "restarted"]);
    event.includes(&json!({
        "process": {"unit": "app.service", "cgroup": {"path": unit.path, "id": unit.id}},
        "diagnosis": {"holder": {"pid": holder.pid(), "unit": "app.service"}},
    }));
    assert_eq!(event.text("/diagnosis/moves/0/command"), format!("kill {}", holder.pid()));
    golden::keep("class-old_instance", &event);
}

#[test]
fn other_service() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let (theirs, ours) = (slice.group("app-a.service"), slice.group("app-b.service"));
    let (payments, ledger) = (Alias::new("payments-api"), Alias::new("ledger-api"));
    let holder = scene.helper().within(&theirs).run_as(&payments).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&ours).run_as(&ledger).is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "process": {
            "comm": "ledger-api",
            "exe": ledger.path.canonicalize().unwrap(),
            "unit": "app-b.service",
            "session": null,
            "cgroup": {"path": ours.path, "id": ours.id},
        },
        "sockets": [{"cgroup_id": theirs.id, "holders": [{"unit": "app-a.service"}]}],
        "diagnosis": {
            "cause": "listener",
            "holder": {
                "class": "other_service",
                "pid": holder.pid(),
                "comm": "payments-api",
                "unit": "app-a.service",
                "session": null,
            },
        },
    }));
    // No process needs to be killed: one of the two needs another port, so both are named.
    let diagnosis = event.at("/diagnosis").to_string();
    assert!(diagnosis.contains("app-a.service") && diagnosis.contains("app-b.service"), "{event}");
    assert!(!event.list("/diagnosis/moves").is_empty(), "{event}");
    assert!(!event.advice(0).contains("kill "), "{event}");
    golden::keep("class-other_service", &event);
}

/// One interpreter can run two services: the unit distinguishes them.
#[test]
fn other_service_of_the_same_program() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let (theirs, ours) = (slice.group("app-a.service"), slice.group("app-b.service"));
    let holder = scene.helper().within(&theirs).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&ours).is_refused(tcp(ADDRESS));

    scene.event_of(&refused).is_explained().includes(&json!({
        "diagnosis": {
            "holder": {"class": "other_service", "pid": holder.pid(), "unit": "app-a.service"},
        },
    }));
}

/// Started by hand in a login session.
#[test]
fn squatter() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let session = slice.group("user.slice/user-1004.slice/session-91.scope");
    let unit = slice.group("app.service");
    let debug = Alias::new("debug-server");
    let helper = scene.helper().within(&session).run_as(&debug).on_terminal().by(1004);
    let holder = helper.holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&unit).is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "process": {"unit": "app.service"},
        "sockets": [{"holders": [{"session": "91", "tty": terminal_of(holder.pid())}]}],
        "diagnosis": {
            "cause": "listener",
            "holder": {
                "class": "squatter",
                "pid": holder.pid(),
                "comm": "debug-server",
                "session": "91",
            },
        },
    }));
    assert!(event.advice(0).contains(&format!("kill {}", holder.pid())), "{event}");
    golden::keep("class-squatter", &event);
}

/// The previous release, started by hand: both classes apply, and the suggested action is the
/// same.
#[test]
fn squatter_of_the_same_program() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let session = slice.group("user.slice/user-1004.slice/session-91.scope");
    let unit = slice.group("app.service");
    let holder = scene.helper().within(&session).by(1004).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&unit).is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    event.is_explained().has_one_of("/diagnosis/holder/class", &["squatter", "old_instance"]);
    event.includes(&json!({"diagnosis": {"holder": {"pid": holder.pid(), "session": "91"}}}));
    assert!(event.advice(0).contains(&format!("kill {}", holder.pid())), "{event}");
}

/// The process holds the port itself: it is configured to bind it twice.
#[test]
fn the_process_itself() {
    let scene = Scene::new();
    let twice = tcp(ADDRESS).listening().repeated(2);
    let refused = scene.helper().is_refused(twice);

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "process": {"pid": refused.pid},
        "diagnosis": {"cause": "listener", "holder": {"class": "self", "pid": refused.pid}},
    }));
    assert!(!event.advice(0).contains("kill "), "{event}");
    golden::keep("class-self", &event);
}

/// An ancestor holds it: here this very test.
#[test]
fn an_ancestor() {
    let scene = Scene::new();
    let _listener = scene.netns.listen(ADDRESS.parse::<SocketAddr>().unwrap());
    let refused = scene.helper().is_refused(tcp(ADDRESS));

    scene.event_of(&refused).is_explained().includes(&json!({
        "diagnosis": {
            "cause": "listener",
            "holder": {"class": "self", "pid": std::process::id()},
        },
    }));
}

/// Two listeners share the port, and both block a third that does not share: neither may be
/// missing.
#[test]
fn two_holders() {
    let scene = Scene::within(Netns::new());
    let shared = tcp(ADDRESS).reuseport().listening();
    let first = scene.helper().holds([shared.clone()]);
    let second = scene.helper().holds([shared]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    event.is_explained();
    let mut holders: Vec<u64> = event
        .list("/sockets")
        .iter()
        .filter_map(|socket| socket.pointer("/holders/0/pid")?.as_u64())
        .collect();
    holders.sort_unstable();
    let mut expected = [u64::from(first.pid()), u64::from(second.pid())];
    expected.sort_unstable();
    assert_eq!(holders, expected, "{event}");
}

/// Whether a signal would end the holder: it may ignore SIGTERM, and while it is stopped
/// (Ctrl-Z) it does nothing at all.
#[test]
fn what_a_signal_would_do() {
    let scene = Scene::new();
    let holder = scene.helper().noting([Op::Ignore(15)]).holds([tcp(ADDRESS).listening()]);
    let pid = Pid::from_raw(holder.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "{status:?}");
    let refused = scene.helper().is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    // It ends with its stdin.
    kill_process(pid, Signal::CONT).unwrap();
    event.includes(&json!({
        "process": {"sigterm": "default"},
        "sockets": [{"holders": [{"state": "stopped", "sigterm": "ignored"}]}],
    }));
    event.has_one_of("/process/state", &["running", "sleeping"]);
}

/// The terminal that a process has open, by its name in /dev.
fn terminal_of(pid: u32) -> String {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut names = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    let name = names.find(|name| name.starts_with("/dev/pts/")).expect("it has a terminal");
    name.strip_prefix("/dev/").unwrap().display().to_string()
}
