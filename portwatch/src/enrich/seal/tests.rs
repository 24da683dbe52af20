use std::fs;

use bytemuck::Zeroable as _;
use portwatch_common::{BindFailure, stage};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::{
    decode::{RawFailure, decode},
    diagnose::diagnose,
    event::{self, Event, Record, read},
    explain::{self, Question},
    history::{History, render},
    sinks::{human, journald, markdown},
};

fn raw() -> RawFailure {
    let mut record = BindFailure::zeroed();
    record.attempt.family = 2;
    record.attempt.stage = stage::BIND;
    decode(bytemuck::bytes_of(&record)).unwrap()
}

/// The text of a process that takes most bytes in JSON.
fn loud(many: usize) -> String {
    "\u{1}".repeat(many)
}

fn process(pid: u32, many: usize) -> Process {
    Process {
        pid,
        fd: Some(3),
        comm: Some(loud(many)),
        exe: Some(loud(many)),
        cwd: Some(loud(many)),
        cmdline: Redaction::default().cmdline(&crate::redact::Unredacted::new(loud(many), false)),
        unit: Some(loud(many)),
        container: Some(loud(many)),
        session: Some(loud(many)),
        cgroup: Some(crate::evidence::Cgroup { id: Some(1), path: Some(loud(many)) }),
        ancestors: (0..32).collect(),
        ..Process::default()
    }
}

fn socket(place: u16, holders: u32, many: usize) -> Socket {
    let local = ([127, 0, 0, 1], 80).into();
    Socket {
        inode: Some(place.into()),
        refused: Some(false),
        reuseport: Some(true),
        holders: (0..holders).map(|pid| process(100 + pid, many)).collect(),
        ..Socket::bare(State::Listen, local, Some(place.into()))
    }
}

fn written(evidence: &Evidence) -> usize {
    let raw = raw();
    let diagnosis = diagnose(evidence);
    let event = Event::new(&event::Host::default(), &raw, evidence.clone(), diagnosis);
    serde_json::to_vec(&Record::BindFailure(Box::new(event))).unwrap().len()
}

#[test]
fn an_event_is_never_larger_than_it_may_be() {
    for (sockets, holders, many) in [(256, 2, 4096), (1, 32, 4096), (256, 1, 200), (16, 32, 90)] {
        let rows = (0..sockets).map(|place| socket(place, holders, many)).collect();
        let mut evidence = Evidence::refused(process(7, many), rows);
        let last = sockets - 1;
        evidence.sockets[usize::from(last)].refused = Some(true);
        let holder =
            crate::evidence::LastHolder { process: process(9, many), ..Default::default() };
        evidence.last_holder = Some(holder.clone());
        evidence.previous_holder = Some(holder);
        for _ in 0..200 {
            evidence.gaps.push(Gap::new(Fact::Other(loud(many)), loud(many)));
        }
        sealed(&mut evidence);
        let size = written(&evidence);
        assert!(size <= MOST_OF_EVENT, "{sockets} {holders} {many}: {size}");
        let refused = evidence.sockets.iter().find(|socket| socket.refused == Some(true)).unwrap();
        assert_eq!(refused.inode, Some(last.into()), "what refused has its place");
        assert_eq!(refused.holders.len(), holders as usize, "and whoever holds it");
        let gap = evidence.gaps.last().unwrap();
        assert!(gap.why.contains("described in brief"), "{gap:?}");
        // A second pass changes nothing, so it does not matter who runs it.
        let once = evidence.clone();
        sealed(&mut evidence);
        assert_eq!(evidence.sockets, once.sockets);
    }
}

#[test]
fn an_event_of_usual_size_keeps_all() {
    let mut evidence = Evidence::refused(process(7, 9), vec![socket(1, 32, 9), socket(2, 32, 9)]);
    let before = evidence.clone();
    sealed(&mut evidence);
    assert_eq!(evidence, before);
}

#[test]
fn reserved_ports_are_cut_between_two() {
    let reserved: Vec<String> = (1..2000).map(|port| port.to_string()).collect();
    let reserved = reserved.join(",");
    let mut evidence = Evidence::refused(process(7, 1), Vec::new());
    evidence.ephemeral =
        Some(Ephemeral { low: 1, high: 9, reserved: reserved.clone(), usage: None });
    sealed(&mut evidence);
    let kept = evidence.ephemeral.unwrap().reserved;
    assert!(kept.len() <= MOST_OF_TEXT && reserved.starts_with(&format!("{kept},")), "{kept}");
    assert_eq!(evidence.gaps[0].what, Fact::EphemeralReserved);
}

/// Returns a value for each field of the schema: every list has two entries. Every text is the
/// secret, unless it is one of a fixed set, or a number or a time as text.
fn filled(schema: &Value, all: &Value, depth: usize) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return filled(&all["$defs"][name], all, depth + 1);
    }
    assert!(depth < 50, "{schema}");
    if let Some(word) = schema.get("const") {
        return word.clone();
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(kinds) = schema[key].as_array() {
            return filled(&kinds[0], all, depth + 1);
        }
    }
    let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
    match (kind.as_str().unwrap_or_default(), schema["format"].as_str()) {
        ("object", _) if schema["properties"].is_object() => {
            let fields = schema["properties"].as_object().unwrap().iter();
            Value::Object(
                fields.map(|(name, of)| (name.clone(), field(name, of, all, depth))).collect(),
            )
        }
        ("object", _) => Value::Object(Map::new()),
        ("array", _) => vec![filled(&schema["items"], all, depth + 1); 2].into(),
        ("string", Some("date-time")) => "2026-01-02T03:04:05Z".into(),
        ("string", Some("ip" | "ipv4")) => "127.0.0.1".into(),
        ("string", _) => SECRETS.into(),
        ("boolean", _) => true.into(),
        ("integer" | "number", _) => 7.into(),
        other => panic!("{other:?} in {schema}"),
    }
}

fn field(name: &str, of: &Value, all: &Value, depth: usize) -> Value {
    match name {
        "local" | "remote" => "127.0.0.1:8080".into(),
        // They have been redacted before they are of this type.
        "cmdline" => vec!["app".to_owned()].into(),
        "states" => serde_json::json!({"LISTEN": 1}),
        _ => filled(of, all, depth + 1),
    }
}

const SECRETS: &str =
    "x --password hunter2 TOKEN=hunter2 redis://:hunter2@db ghp_hunter2hunter2hunter2";

fn full_of_secrets() -> Evidence {
    let schema = schemars::schema_for!(Evidence);
    let schema = schema.to_value();
    serde_json::from_value(filled(&schema, &schema, 0)).unwrap()
}

/// The schema adds every new field to this test.
#[test]
fn no_text_of_any_field_has_a_secret() {
    let mut evidence = full_of_secrets();
    let before = serde_json::to_string(&evidence).unwrap();
    assert!(before.matches("hunter2").count() > 200, "{before}");
    sealed(&mut evidence);
    let raw = raw();
    let diagnosis = diagnose(&evidence);
    let mut history = History::default();
    history.add("", &evidence, &diagnosis, 1);
    let report = history.report();
    let host = event::Host::default();
    let event = Event::new(&host, &raw, evidence.clone(), diagnosis);
    let asked = Question {
        protocol: event.failure.protocol,
        address: None,
        device: None,
        port: 80,
        reuseaddr: true,
    };
    let answers = [explain::answer(&host, asked, evidence)];
    let mut note = Vec::new();
    markdown::explanations(&answers, &mut note).unwrap();
    let record = Record::BindFailure(Box::new(event.clone()));
    for (what, text) in [
        ("json", serde_json::to_string(&record).unwrap()),
        ("human", human::block(&event, None)),
        ("markdown", markdown::note(&event)),
        ("journald", journald::message(&record)),
        ("explain", human::told(&answers)),
        ("explain as json", serde_json::to_string(&answers).unwrap()),
        ("explain as markdown", String::from_utf8(note).unwrap()),
        ("history", render::table(&report)),
        ("history as markdown", render::markdown(&report)),
        ("history as json", serde_json::to_string(&report).unwrap()),
        ("a log", format!("{event:?}")),
    ] {
        assert!(!text.contains("hunter2"), "{what}: {text}");
    }
}

/// What is captured contains names of programs, units and images of every kind.
#[test]
fn nothing_is_taken_out_of_what_is_no_secret() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/events");
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let Record::BindFailure(event) = read::record(text.trim_end()).unwrap() else { panic!() };
        let mut evidence = event.into_evidence();
        let before = evidence.clone();
        sealed(&mut evidence);
        assert_eq!(evidence, before);
    }
    for name in [
        "registry.local:5000/app/auth-token:1.0",
        "vault-secret:latest",
        "systemd: the manager's token: no such file",
        "/srv/password/app (deleted)",
        "app@token.service",
        "k8s_secret_web-1_shop_0",
        "--password",
    ] {
        let mut text = name.to_owned();
        Redaction::name(&mut text);
        assert_eq!(text, name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn any_evidence_fits(sockets in 0u16..16, holders in 0u32..33, many in 0usize..1500) {
        let rows = (0..sockets).map(|place| socket(place, holders, many)).collect();
        let mut evidence = Evidence::refused(process(7, many), rows);
        sealed(&mut evidence);
        prop_assert!(written(&evidence) <= MOST_OF_EVENT);
    }
}
