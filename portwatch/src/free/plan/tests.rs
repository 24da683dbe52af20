use std::{fs, path::Path};

use super::*;
use crate::{
    event::Event,
    evidence::{Evidence, Subject, TimeWait},
    explain::{self, Question},
};

/// What `explain` says of the port of a captured event (tests/golden).
fn answer(name: &str) -> Explanation {
    answer_with(name, |_| {})
}

/// The same after the evidence was changed.
fn answer_with(name: &str, change: impl FnOnce(&mut Evidence)) -> Explanation {
    let path = format!("../tests/golden/events/{name}.json");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let event: Event = serde_json::from_str(&text).unwrap();
    let asked = Question {
        protocol: event.failure.protocol,
        address: Some(event.failure.address),
        device: None,
        port: event.failure.port,
        reuseaddr: false,
    };
    let host = event.host.clone();
    let mut evidence = event.into_evidence();
    evidence.process = Process::default();
    evidence.subject = Subject::Asked;
    evidence.sockets.iter_mut().for_each(|socket| socket.refused = None);
    change(&mut evidence);
    explain::answer(&host, asked, evidence)
}

fn own() -> Process {
    Process { pid: 4_000_000, ..Process::default() }
}

fn proposal(name: &str) -> Proposal {
    match plan(&answer(name), &own(), None) {
        Plan::Act(proposal) => *proposal,
        other => panic!("{name}: {other:?}"),
    }
}

/// What is done is what is printed.
#[test]
fn the_steps_are_the_suggested_actions() {
    for name in [
        "class-container",
        "class-inherited",
        "class-other_service",
        "class-squatter",
        "class-thread_only",
        "cause-connections_remain",
        "cause-listener",
    ] {
        let answer = answer(name);
        let moves = answer.diagnosis.as_ref().unwrap().moves.iter();
        let printed: Vec<_> = moves
            .filter(|step| step.act.is_some())
            .filter_map(|step| step.command.clone())
            .collect();
        let steps = proposal(name).steps.into_iter().map(|step| step.command);
        assert_eq!(steps.collect::<Vec<_>>(), printed, "{name}");
        assert!(!printed.is_empty(), "{name}");
    }
}

#[test]
fn what_nobody_can_stop_is_refused() {
    for (name, why) in [
        ("class-kernel_socket", "the kernel itself"),
        ("class-kube_proxy", "kube-proxy"),
        ("class-app_daemon", "daemon's programs"),
    ] {
        match plan(&answer(name), &own(), None) {
            Plan::Refuse(refusal) => {
                assert!(refusal.why.contains(why), "{name}: {refusal:?}");
                assert!(refusal.command.is_some(), "{name}: {refusal:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// SIGKILL is in the plan only if it was asked for, whatever the diagnosis suggests.
#[test]
fn nothing_is_killed_unless_asked_for() {
    for (sigterm, does) in [(Sigterm::Ignored, "ignores"), (Sigterm::Blocked, "blocks")] {
        let answer = answer_with("class-squatter", |evidence| {
            let holders = evidence.sockets.iter_mut().flat_map(|socket| &mut socket.holders);
            holders.for_each(|holder| holder.sigterm = Some(sigterm));
        });
        let suggested = answer.diagnosis.as_ref().unwrap().moves.iter();
        let suggested = suggested.filter_map(|step| step.command.as_deref());
        assert!(suggested.into_iter().any(|command| command.contains("-KILL")), "{does}");
        let proposal = |kill_after| match plan(&answer, &own(), kill_after) {
            Plan::Act(proposal) => proposal,
            other => panic!("{other:?}"),
        };
        let without = proposal(None);
        assert!(!without.steps[0].command.contains("KILL"), "{:?}", without.steps);
        assert!(without.obstacles[0].contains(does), "{:?}", without.obstacles);
        let with = proposal(Some(Duration::from_millis(1500)));
        assert!(with.steps[0].command.contains("; sleep 1.5; kill -KILL "), "{:?}", with.steps);
        assert!(with.obstacles.is_empty());
    }
}

/// Nothing in a captured event is stopped by `--yes` alone that others may use.
#[test]
fn consent_is_the_judgement() {
    assert_eq!(proposal("class-other_service").consent, Consent::Check);
    assert_eq!(proposal("class-squatter").consent, Consent::Likely);
}

/// Whether the next bind succeeds, with SO_REUSEADDR and without it.
#[test]
fn what_follows_is_in_the_plan() {
    let follows = |established| {
        let mut answer = answer("class-squatter");
        answer.time_wait = TimeWait::default();
        answer.connections = Connections { established, closing: 0 };
        match plan(&answer, &own(), None) {
            Plan::Act(proposal) => proposal.follows.join("\n"),
            other => panic!("{other:?}"),
        }
    };
    let none = follows(0);
    assert!(none.contains("with SO_REUSEADDR or without it"), "{none}");
    let some = follows(3);
    assert!(some.contains("TIME-WAIT for 60 s") && !some.contains("no connections"), "{some}");
}

#[test]
fn what_ends_by_itself_is_waited_for() {
    for name in ["cause-time_wait.app_lacks_reuseaddr", "cause-closing"] {
        assert_eq!(plan(&answer(name), &own(), None), Plan::Wait, "{name}");
    }
    let mut free = answer("cause-time_wait.app_lacks_reuseaddr");
    free.sockets.clear();
    free.time_wait = TimeWait::default();
    free.diagnosis = None;
    assert_eq!(plan(&free, &own(), None), Plan::Free);
}

/// The command would end with what it stops.
#[test]
fn nothing_ends_the_command_itself() {
    let answer = answer("class-squatter");
    let holder = holder(&answer, answer.diagnosis.as_ref().unwrap()).unwrap().pid;
    let below = Process { ancestors: vec![77, holder], ..own() };
    for own in [below, Process { pid: holder, ..own() }] {
        match plan(&answer, &own, None) {
            Plan::Refuse(refusal) => assert!(refusal.why.contains("started this command")),
            other => panic!("{other:?}"),
        }
    }
}

/// Any captured event has a plan that can be shown.
#[test]
fn every_captured_event_has_a_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/events");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        match plan(&answer(&name), &own(), None) {
            Plan::Act(proposal) => assert!(!proposal.ends.is_empty(), "{name}"),
            Plan::Refuse(refusal) => assert!(!refusal.why.is_empty(), "{name}"),
            Plan::Free | Plan::Wait => {}
        }
    }
}
