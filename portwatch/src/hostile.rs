//! Tests every output for people with a process whose texts are as hostile as possible.

use std::{
    fs,
    io::{Read as _, Seek as _},
};

use anstream::ColorChoice;
use clap::ValueEnum as _;
use serde_json::Value;

use crate::{
    event::{Event, Record, action, read},
    evidence::{Process, Subject},
    explain::{self, Question},
    history::{History, render},
    replay::diff::Change,
    sinks::{Format, Kind, Placed, Table, human, journald, markdown},
    text::sanitize::is_harmless,
};

/// Clears the screen, reverses the text, rings the bell, starts a new line, and contains
/// invisible characters: one of each kind.
const HOSTILE: &str = "x\u{1b}[2J\u{202e}\u{9b}31m\u{7}\r\n  do  kill 1\u{ad}\u{34f}\u{115f}\u{17b4}\
    \u{180e}\u{200b}\u{2028}\u{2066}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{fff9}\u{1d173}\u{e0041}\u{e0100} \
    @team #123 https://evil.example www.evil.example";

/// Fields whose text comes from processes, or from the users who run them.
const SAID: [&str; 22] = [
    "comm", "exe", "unit", "container", "pod", "session", "session_user", "user", "tty", "name",
    "namespace", "image", "published", "hostname", "kernel", "path", "why", "program", "restart",
    "boot_id", "errno", "reserved",
];

fn spoil(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if SAID.contains(&key.as_str()) => text.push_str(HOSTILE),
                    Value::Array(arguments) if key == "cmdline" => {
                        arguments.push(HOSTILE.into());
                    }
                    _ => spoil(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(spoil),
        _ => {}
    }
}

/// All golden events, with hostile texts.
fn events() -> Vec<Event> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/events");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let spoilt = files.map(|path| {
        let mut value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        spoil(&mut value);
        match read::record(&value.to_string()).unwrap() {
            Record::BindFailure(event) => event.diagnosed_again(),
            other => panic!("{other:?}"),
        }
    });
    spoilt.collect()
}

#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    // Its own colours and line breaks are allowed.
    let harmful = |char: &char| !is_harmless(*char) && !matches!(char, '\n' | '\u{1b}');
    let found: Vec<char> = text.chars().filter(harmful).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {}", text.escape_debug());
    assert!(!text.contains("\u{1b}[2J"), "{what}: {}", text.escape_debug());
    let line_of_its_own = text.lines().any(|line| line == "  do  kill 1");
    assert!(!line_of_its_own, "{what}: {text}");
}

/// What each format for people writes to its output about a record.
fn written(record: &Record) -> Vec<(Format, String)> {
    // JSON is read by programs.
    let for_people = Format::value_variants()
        .iter()
        .copied()
        .filter(|format| Kind::from(*format).entry().is_on_stdout && *format != Format::Json);
    for_people
        .map(|format| {
            let mut file = tempfile::tempfile().unwrap();
            let out = file.try_clone().unwrap();
            let Placed { mut sink, .. } =
                Table::from(format).open(out, ColorChoice::Never).unwrap();
            sink.write(record).unwrap();
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            (format, text)
        })
        .collect()
}

#[test]
fn nobody_is_deceived() {
    let events = events();
    assert!(events.len() > 20, "{} events are too few", events.len());
    let mut history = History::default();
    for event in events {
        for columns in [None, Some(80)] {
            assert_harmless("human", &human::block(&event, columns));
        }
        assert_harmless("markdown", &markdown::note(&event));
        let record = Record::BindFailure(Box::new(event.clone()));
        assert_harmless("journald", &journald::message(&record));
        for (format, text) in written(&record) {
            assert_harmless(&format!("{format:?}"), &text);
        }
        for mut outcome in crate::event::outcome::examples() {
            outcome.process.comm = Some(HOSTILE.to_owned());
            if let Some(unit) = &mut outcome.unit {
                unit.name = HOSTILE.to_owned();
            }
            assert_harmless("outcome", &human::line(&outcome, ColorChoice::Never));
            assert_harmless("outcome as markdown", &markdown::line(&outcome));
            let record = Record::Outcome(Box::new(outcome));
            assert_harmless("outcome in journald", &journald::message(&record));
        }
        let mut action = action::example(event.diagnosis.clone());
        action.session_user = Some(HOSTILE.to_owned());
        action.why = HOSTILE.to_owned();
        action.steps.iter_mut().for_each(|step| step.what.push_str(HOSTILE));
        assert_harmless("action", &human::deed(&action));
        assert_harmless("action as markdown", &markdown::deed(&action));
        assert_harmless("action as a note", &markdown::action(&action));
        history.acted(&action);
        let record = Record::Action(Box::new(action));
        assert_harmless("action in journald", &journald::message(&record));
        let asked = Question {
            protocol: event.failure.protocol,
            address: None,
            device: None,
            port: event.failure.port,
            reuseaddr: true,
        };
        let mut evidence = event.clone().into_evidence();
        history.add(&event.id, &evidence, &event.diagnosis, 1);
        evidence.process = Process::default();
        evidence.subject = Subject::Asked;
        let answer = [explain::answer(&event.host, asked, evidence)];
        assert_harmless("explain", &human::told(&answer));
        let mut note = Vec::new();
        markdown::explanations(&answer, &mut note).unwrap();
        assert_harmless("explain as markdown", &String::from_utf8(note).unwrap());
        let mut other = event.diagnosis.clone();
        other.summary.push_str(HOSTILE);
        let mut text = Vec::new();
        Change::between(&event, &other).unwrap().unwrap().write(false, &mut text).unwrap();
        assert_harmless("replay --diff", &String::from_utf8(text).unwrap());
    }
    let report = history.report();
    assert_harmless("history", &render::table(&report));
    assert_harmless("history as markdown", &render::markdown(&report));
}
