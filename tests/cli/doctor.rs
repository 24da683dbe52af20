//! `portwatch doctor` on this machine, and with something removed from it.

use portwatch_tests::command::{as_nobody, portwatch, run};
use serde_json::Value;

use crate::deprived::{with_hidden_processes, without_cgroup2};

fn json(said: &portwatch_tests::command::Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[track_caller]
fn source<'a>(report: &'a Value, name: &str) -> &'a Value {
    let sources = report["sources"].as_array().unwrap();
    let found = sources.iter().find(|source| source["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[test]
fn it_names_the_hooks() {
    let said = run(&mut portwatch(&["doctor"]));
    said.is_result();
    for set in ["fexit", "kprobe", "tracepoint"] {
        assert!(said.stdout.contains(set), "no {set}: {said}");
    }
    assert!(!said.stdout.contains('\u{1b}'), "there is colour, and no terminal: {said}");
    for row in ["kernel", "granted", "hooks", "cost", "attached", "sock_diag", "kubelet"] {
        assert!(said.stdout.lines().any(|line| line.starts_with(row)), "no {row}: {said}");
    }
}

#[test]
fn it_speaks_json() {
    let said = run(&mut portwatch(&["doctor", "--json"]));
    said.is_result();
    let report = json(&said);
    assert!(report["because"].as_str().is_some_and(|why| !why.is_empty()), "{report:#}");
    for capability in report["capabilities"].as_array().unwrap() {
        assert_eq!(capability["has"], true, "{report:#}");
    }
    for name in [
        "sock_diag", "namespaces", "proc", "cgroup2", "systemd", "docker", "podman", "kubelet",
        "iter/task_file",
    ] {
        let source = source(&report, name);
        let state = source["state"].as_str().unwrap();
        assert!(["ready", "absent", "limited"].contains(&state), "{source:#}");
        assert!(!source["detail"].as_str().unwrap().is_empty(), "{source:#}");
    }
    for name in ["namespaces", "iter/task_file"] {
        assert_eq!(source(&report, name)["state"], "ready", "{report:#}");
    }
}

#[test]
fn who_may_do_nothing_is_told_what_each_right_is_for() {
    let said = run(as_nobody(None, &["doctor", "--json"]).command());
    assert_eq!(said.code, 4, "{said}");
    let report = json(&said);
    for capability in report["capabilities"].as_array().unwrap() {
        assert_eq!(capability["has"], false, "{report:#}");
        assert!(!capability["without"].as_str().unwrap().is_empty(), "{report:#}");
    }
    assert_eq!(source(&report, "proc")["state"], "limited", "{report:#}");
    assert_eq!(source(&report, "namespaces")["state"], "limited", "{report:#}");
    let said = run(as_nobody(None, &["doctor"]).command());
    assert!(said.stdout.contains("without CAP_SYS_PTRACE: "), "{said}");
}

#[test]
fn processes_that_are_hidden() {
    let said = run(with_hidden_processes(&mut portwatch(&["doctor", "--json"])));
    let report = json(&said);
    let proc = source(&report, "proc");
    assert_eq!(proc["state"], "limited", "{report:#}");
    assert!(proc["detail"].as_str().unwrap().contains("hidepid="), "{report:#}");
}

#[test]
fn cgroup2_that_is_not_there() {
    let said = run(without_cgroup2(&mut portwatch(&["doctor", "--json"])));
    let report = json(&said);
    assert_eq!(source(&report, "cgroup2")["state"], "limited", "{report:#}");
}
