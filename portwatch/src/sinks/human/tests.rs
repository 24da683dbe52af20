//! The human output for every cause and every class of holder: captured events (tests/golden),
//! and evidence made here for what no test can capture.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;
use strum::VariantArray as _;

use super::*;
use crate::{
    diagnose::{Cause, HolderClass, diagnose},
    event::Host,
    evidence::{Engine, Evidence, Fact, Gap, Protocol, Subject},
    explain::{self, Question},
    kernel::nsfs::Hidden,
};

/// The width of the snapshots.
const WIDTH: usize = 100;

/// The captured events whose names begin with this, with their names.
fn captured(beginning: &str) -> Vec<(String, Event)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/events");
    let mut events: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .filter(|(name, _)| name.starts_with(beginning))
        .map(|(name, path)| {
            (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
        })
        .collect();
    events.sort_by(|a: &(String, Event), b| a.0.cmp(&b.0));
    events
}

fn one(name: &str) -> Event {
    captured(name).remove(0).1
}

/// An event with changed evidence, diagnosed again.
fn changed(event: Event, change: impl FnOnce(&mut Evidence)) -> Event {
    let mut evidence = event.clone().into_evidence();
    change(&mut evidence);
    let diagnosis = diagnose(&evidence);
    let Evidence { failure, process, netns, sockets, time_wait, gaps, .. } = evidence;
    Event { failure, process, netns, sockets, time_wait, gaps, diagnosis, ..event }
}

/// Nothing was found, and not everything could be searched.
fn undetermined() -> Event {
    changed(one("cause-listener"), |evidence| {
        evidence.sockets.clear();
        evidence.last_holder = None;
        evidence.gaps.push(Gap::new(Fact::Sockets, "sock_diag: the kernel returned errno 12"));
    })
}

/// systemd listens for a service that is not started yet.
fn socket_unit() -> Event {
    changed(one("class-other_service"), |evidence| {
        let holder = &mut evidence.sockets[0].holders[0];
        holder.pid = 1;
        holder.comm = Some("systemd".to_owned());
        holder.exe = Some("/usr/lib/systemd/systemd".to_owned());
        holder.cmdline = vec!["/sbin/init".to_owned()].into();
        holder.unit = Some("web.socket".to_owned());
        holder.cgroup = None;
    })
}

/// Access to the holder is denied.
fn unknown() -> Event {
    one("cause-unseen")
}

fn told(events: &[(String, Event)], columns: Option<usize>) -> String {
    events
        .iter()
        .map(|(name, event)| format!("── {name}\n{}", strip_str(&block(event, columns))))
        .collect()
}

fn causes() -> Vec<(String, Event)> {
    let mut events = captured("cause-");
    events.push(("cause-undetermined".to_owned(), undetermined()));
    events
}

fn classes() -> Vec<(String, Event)> {
    let mut events = captured("class-");
    events.push(("class-socket_unit".to_owned(), socket_unit()));
    events.push(("class-unknown".to_owned(), unknown()));
    events
}

#[test]
fn every_cause() {
    let events = causes();
    let shown: BTreeSet<&str> =
        events.iter().map(|(_, event)| event.diagnosis.cause.into()).collect();
    let all: BTreeSet<&str> = Cause::VARIANTS.iter().map(Into::into).collect();
    assert_eq!(shown, all);
    insta::assert_snapshot!(told(&events, Some(WIDTH)));
}

#[test]
fn every_class() {
    let events = classes();
    let holders = events.iter().filter_map(|(_, event)| event.diagnosis.holder.as_ref());
    let shown: BTreeSet<&str> = holders.map(|holder| holder.class.into()).collect();
    let all: BTreeSet<&str> = HolderClass::VARIANTS.iter().map(Into::into).collect();
    assert_eq!(shown, all);
    insta::assert_snapshot!(told(&events, Some(WIDTH)));
}

/// The output on a terminal.
#[test]
fn in_colour() {
    let text = block(&one("class-squatter"), Some(80));
    insta::assert_snapshot!(text.replace('\u{1b}', "␛"));
}

/// The output in a file: one line per entry.
#[test]
fn in_a_pipe() {
    let mut many = one("class-squatter");
    many.count = 17;
    insta::assert_snapshot!(told(&[("×17".to_owned(), many)], None));
}

/// Lines fit, except single words and commands, which are to be pasted; continued lines are
/// indented.
#[test]
fn at_any_width_it_is_aligned() {
    for columns in [40, 80, 120] {
        for (name, event) in causes().into_iter().chain(classes()) {
            let commands: Vec<_> =
                event.diagnosis.moves.iter().filter_map(|step| step.command.clone()).collect();
            let text = strip_str(&block(&event, Some(columns))).to_string();
            let rows = text.lines().skip_while(|line| !line.starts_with("  failed  "));
            for line in rows.filter(|line| !line.is_empty()) {
                let (indent, rest) = line.split_at_checked(INDENT).unwrap_or((line, ""));
                let fits = textwrap::core::display_width(line) <= columns;
                let is_command = commands.iter().any(|command| rest == command);
                assert!(fits || is_command || !rest.contains(' '), "{name} at {columns}: {line}");
                assert!(!rest.starts_with(' '), "{name} at {columns} is not aligned: {line}");
                assert!(indent.starts_with("  "), "{name} at {columns} is not aligned: {line}");
            }
        }
    }
}

/// Wrapping loses nothing.
#[test]
fn the_words_are_the_same_at_any_width() {
    for (name, event) in causes().into_iter().chain(classes()) {
        let words = |columns| -> Vec<String> {
            let text = strip_str(&block(&event, columns)).to_string();
            text.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(words(Some(60)), words(None), "{name}");
    }
}

proptest! {
    /// Texts of processes are wrapped like others, and harmless.
    #[test]
    fn any_arguments_are_shown(arguments in prop::collection::vec(".{0,60}", 0..6), columns in 40usize..130) {
        let mut event = one("class-squatter");
        event.process.cmdline = arguments.into();
        let text = strip_str(&block(&event, Some(columns))).to_string();
        prop_assert!(text.chars().all(|char| char == '\n' || !char.is_control()));
    }
}

/// The answers of explain for each of the captured ports.
#[test]
fn asked_about() {
    let told: String = captured("cause-")
        .into_iter()
        .map(|(name, event)| {
            let asked = Question {
                protocol: event.failure.protocol,
                address: Some(event.failure.address).filter(|address| !address.is_unspecified()),
                device: None,
                port: event.failure.port,
                reuseaddr: event.failure.reuseaddr == Some(true),
            };
            let host = Host { hooks: "none".to_owned(), ..event.host.clone() };
            let mut evidence = event.into_evidence();
            // Its own sockets then belong to another program.
            evidence.process = Process::default();
            evidence.subject = Subject::Asked;
            evidence.sockets.iter_mut().for_each(|socket| socket.refused = None);
            let answer = explain::answer(&host, asked, evidence);
            format!(
                "── {name}\n{}",
                strip_str(&explanation::block(&answer, Some(WIDTH), &[Engine::Docker]))
            )
        })
        .collect();
    insta::assert_snapshot!(told);
}

/// Inside of a pid namespace the holder may be outside.
#[test]
fn in_a_pid_namespace() {
    let event = changed(one("cause-listener"), |evidence| {
        evidence.sockets.iter_mut().for_each(|socket| socket.holders.clear());
        evidence.last_holder = None;
        evidence.gaps.push(Gap::new(Fact::Holders, Hidden::PidNamespace.why()));
    });
    let text = strip_str(&block(&event, None)).to_string();
    assert!(text.contains("an unidentified process is listening on 127.0.0.1:8080"), "{text}");
    assert!(text.contains("processes outside this pid namespace are not visible"), "{text}");
    insta::assert_snapshot!(told(&[("cause-listener".to_owned(), event)], Some(WIDTH)));
}

/// Without Docker on the machine, the output does not mention it.
#[test]
fn docker_is_spoken_of_where_it_is() {
    let asked = Question {
        protocol: Protocol::Tcp,
        address: None,
        device: None,
        port: 8080,
        reuseaddr: false,
    };
    let event = one("class-squatter");
    let host = event.host.clone();
    let mut evidence = event.into_evidence();
    evidence.sockets.clear();
    let answer = explain::answer(&host, asked, evidence);
    let told =
        |engines: &[Engine]| strip_str(&explanation::block(&answer, None, engines)).to_string();
    assert!(told(&[Engine::Docker]).contains("docker ps"));
    assert!(!told(&[]).to_lowercase().contains("docker"));
}
