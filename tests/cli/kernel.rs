//! A kernel that lacks something required: exit code 1, and a hint.

use portwatch_tests::{
    agent::Agent,
    command::{portwatch, run},
};

use crate::deprived::{without_bpf, without_btf, without_cgroup2};

const RUN: &[&str] = &["run", "--format", "json"];

#[test]
fn no_type_information() {
    let said = run(without_btf(&mut portwatch(RUN)));
    said.is_error(1);
    assert!(said.stderr.contains("BTF") || said.stderr.contains("/sys/kernel/btf"), "{said}");
}

#[test]
fn no_bpf_at_all() {
    let said = run(without_bpf(&mut portwatch(RUN)));
    said.is_error(1);
}

/// Only the tracepoint set needs cgroup2; with the other, the agent runs.
#[test]
fn no_cgroup2() {
    let mut command = portwatch(RUN);
    if let Ok(agent) = Agent::start_command(without_cgroup2(&mut command)) {
        assert!(!agent.said().contains("tracepoint hooks"), "{}", agent.said());
        return;
    }
    let said = run(without_cgroup2(&mut portwatch(RUN)));
    said.is_error(1);
    assert!(said.stderr.contains("cgroup2") || said.stderr.contains("cgroup v2"), "{said}");
}

/// The doctor must work on just these machines.
#[test]
fn doctor_tells_what_is_missing() {
    for (prepare, what) in [
        (without_btf as fn(&mut _) -> &mut _, "btf"),
        (without_cgroup2, "cgroup"),
        (without_bpf, "not implemented"),
    ] {
        let said = run(prepare(&mut portwatch(&["doctor"])));
        assert!((0..=4).contains(&said.code), "{said}");
        assert!(!said.stderr.contains("panicked"), "{said}");
        let told = format!("{}{}", said.stdout, said.stderr).to_lowercase();
        assert!(told.contains(what), "{what} is not mentioned: {said}");
    }
}
