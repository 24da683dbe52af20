//! Events of real failed binds, kept permanently (`events/`, one JSON line each): each is
//! diagnosed again, and the diagnosis must equal the recorded one, byte for byte. A captured
//! event becomes such a test when it is copied there.
//!
//! `PORTWATCH_GOLDEN=1` writes the current diagnoses into them, after an intended change of
//! the rules; the diff then shows what changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic fails the test and says where"
)]

use std::{collections::HashSet, fmt::Display, fs};

use portwatch::{
    diagnose::{Cause, Confidence, HolderClass, Risk, diagnose},
    enrich::survey,
    event::{AgentState, Event},
    evidence::{Protocol, Stage, State, SupervisorKind},
};
use portwatch_tests::{forms, golden};
use serde::Serialize;
use strum::VariantArray;

/// The events with their names.
fn events() -> Vec<(String, Event)> {
    let mut events: Vec<_> = fs::read_dir(golden::folder())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), 1, "{name} is not one line");
            (name.clone(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")))
        })
        .collect();
    events.sort_by(|a, b| a.0.cmp(&b.0));
    events
}

#[test]
fn today_they_are_diagnosed_as_they_were() {
    for (name, event) in events() {
        let today = diagnose(&event.clone().into_evidence());
        if golden::is_asked_for() {
            let renewed = Event { diagnosis: today, ..event };
            // Through a value, whose keys are sorted as in a capture of the tests.
            let line = serde_json::to_value(&renewed).unwrap().to_string();
            fs::write(golden::folder().join(format!("{name}.json")), line + "\n").unwrap();
            continue;
        }
        let [today, recorded] =
            [&today, &event.diagnosis].map(|it| serde_json::to_string_pretty(it).unwrap());
        assert_eq!(today, recorded, "{name}");
    }
}

#[test]
fn their_commands_stand_in_the_table() {
    for (name, event) in events() {
        for command in event.diagnosis.moves.iter().filter_map(|step| step.command.as_deref()) {
            assert!(forms::is_known(command), "{name}: no row in docs/diagnosis.md for {command}");
        }
    }
}

/// A fixture for every word that a test can make real. The others need permissions or a
/// machine that the tests do not have.
#[test]
fn every_cause_and_class_is_there() {
    let all = events();
    let diagnoses = || all.iter().map(|(_, event)| &event.diagnosis);
    let causes: HashSet<_> = diagnoses().map(|diagnosis| diagnosis.cause).collect();
    let holders = diagnoses().filter_map(|diagnosis| diagnosis.holder.as_ref());
    let classes: HashSet<_> = holders.map(|holder| holder.class).collect();
    for cause in Cause::VARIANTS {
        let expected = !matches!(cause, Cause::Undetermined);
        assert!(!expected || causes.contains(cause), "no event with cause {cause}");
    }
    for class in HolderClass::VARIANTS {
        let expected = !matches!(class, HolderClass::SocketUnit);
        assert!(!expected || classes.contains(class), "no event with class {class}");
    }
}

/// People and metrics get the same words as the events.
#[test]
fn a_name_is_the_same_in_text_and_in_json() {
    fn check<T: VariantArray + Serialize + Display>() {
        for variant in T::VARIANTS {
            assert_eq!(serde_json::to_value(variant).unwrap(), variant.to_string());
        }
    }
    check::<AgentState>();
    check::<Cause>();
    check::<Confidence>();
    check::<HolderClass>();
    check::<Protocol>();
    check::<Risk>();
    check::<Stage>();
    check::<State>();
    check::<SupervisorKind>();
    check::<survey::State>();
}

#[test]
fn no_event_names_the_machine_that_it_was_captured_on() {
    for (name, event) in events() {
        assert_eq!(event.host.hostname, "web-3", "{name}");
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains("/target/"), "{name}");
    }
}
