//! Who holds the port: what is searched, and what is said of what cannot be known.

use std::process::Command;

use portwatch_tests::{
    cgroup::Slice,
    command::{as_nobody, run},
    helper::Helper,
    netns::Netns,
    op::{Op, tcp},
    paste,
    programs::{installed, portwatch},
    skip::skip,
};
use serde_json::{Value, json};

use super::{ADDRESS, answer, assert_includes, read};

/// What can be known, what cannot, and why.
#[test]
fn as_an_ordinary_user() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let mut command = as_nobody(Some(&netns), &["explain", ADDRESS, "--format", "json"]);
    let (code, answers) = read(&run(command.command()));
    assert_eq!(code, 3);
    assert_includes(
        &answers[0],
        &json!({
            "bind": {"without_reuseaddr": "refused"},
            "sockets": [{"state": "LISTEN", "holders": []}],
            "diagnosis": {"cause": "listener", "holder": {"class": "unknown", "pid": null}},
        }),
    );
    let command = answers[0]["diagnosis"]["moves"][0]["command"].as_str().unwrap();
    // Root needs no sudo(8).
    let as_root = command.strip_prefix("sudo ").unwrap_or_else(|| panic!("{command}"));
    let mut shell = paste::shell(as_root);
    netns.confine(&mut shell);
    let shown = shell.output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&format!("binder[{}]", holder.pid())), "{command}: {shown}");
    let gaps = answers[0]["gaps"].as_array().unwrap();
    let gap = gaps.iter().find(|gap| gap["what"] == "sockets.holders").expect("it is a gap");
    // Threads of the kernel's own have no files, and that these are not seen is no gap.
    let why = gap["why"].as_str().unwrap();
    let named = why.split(" and ").next().unwrap().split(|char: char| !char.is_ascii_digit());
    for pid in named.filter(|part| !part.is_empty()) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, after)| after.split(' ').nth(2));
        assert!(parent != Some("2") && pid != "2", "{why}");
    }
}

/// A holder that nothing points to: it inherited the socket, and shares its cgroup
/// with everything.
#[test]
fn a_holder_that_must_be_searched_for() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([Op::from(tcp(ADDRESS).listening()), Op::Daemon]);
    let (code, answer) = answer(&netns, &[ADDRESS]);
    assert_eq!(code, 3);
    assert_includes(&answer, &json!({"diagnosis": {"holder": {"pid": holder.pid()}}}));
}

/// Of more sockets than one look was meant for, made in a control group that their
/// process has left, each has its holder: none is the kernel's.
#[test]
fn every_one_of_many_sockets_is_searched_for() {
    const MANY: u32 = 200;
    let (netns, slice) = (Netns::new(), Slice::new());
    let (before, after) = (slice.group("before.scope"), slice.group("after.scope"));
    let shared = tcp(ADDRESS).reuseport().listening().repeated(MANY);
    let holder = Helper::new(&netns).within(&before).holds([shared]);
    after.adopt(holder.pid());
    let (code, answer) = answer(&netns, &[ADDRESS]);
    assert_eq!(code, 3);
    let sockets = answer["sockets"].as_array().unwrap();
    assert_eq!(sockets.len(), MANY as usize);
    for socket in sockets {
        assert_includes(socket, &json!({"holders": [{"pid": holder.pid()}]}));
        assert_eq!(socket["unheld"], Value::Null, "{socket}");
    }
}

/// As in `docker run --network host`: who holds the port may be a process that cannot be
/// seen from here, and that nobody has it is not known.
#[test]
fn in_a_pid_namespace_a_holder_outside_is_not_known() {
    let Some(unshare) = installed("unshare") else {
        skip("explain_in_a_pid_namespace", "no unshare(1)");
        return;
    };
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let mut command = Command::new(unshare);
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(portwatch().unwrap()).args(["explain", ADDRESS, "--format", "json"]);
    netns.confine(&mut command);
    let (code, answers) = read(&run(&mut command));
    assert_eq!(code, 3);
    // The record of an agent outside may name it all the same, by its number there.
    let named = &answers[0]["diagnosis"]["holder"];
    assert!(named["class"] == "unknown" || named["pid"] == holder.pid(), "{named}");
    assert_eq!(answers[0]["sockets"][0]["unheld"], Value::Null, "{}", answers[0]);
    let gaps = answers[0]["gaps"].as_array().unwrap();
    let why = gaps.iter().find(|gap| gap["what"] == "sockets.holders").unwrap();
    assert!(why["why"].as_str().unwrap().contains("pid namespace"), "{why}");
}
