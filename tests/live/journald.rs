//! The systemd journal as an output and as a source.

use portwatch_tests::{
    agent::Agent, cgroup::Slice, command::run, journal::Journal, op::tcp, scene::Scene, skip::skip,
};
use rustix::process::Signal;
use serde_json::Value;

const ID: &str = "MESSAGE_ID=ee4bb6a7fbbd40b990cd543f3ab2e727";

fn entries(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_journal_has_it_by_unit_and_replay_reads_it_back() {
    let journal = match Journal::start() {
        Ok(journal) => journal,
        Err(lacks) => return skip("journald", &lacks),
    };
    let scene = Scene::new();
    let arguments = ["run", "--format", "json", "--format", "journald", "--port", "8097"];
    let mut agent = Agent::start_command(&mut journal.portwatch(&arguments)).unwrap();
    let slice = Slice::new();
    let group = slice.group("app.service");
    let _holder = scene.helper().holds([tcp("127.0.0.1:8097").listening()]);
    let alive = scene.helper().within(&group).is_refused(tcp("127.0.0.1:8097"));
    let event = agent.event_of(&alive);
    // More than a datagram can hold.
    let long = "x".repeat(300_000);
    let large = scene.helper().called(&long[..100_000]).is_refused(tcp("127.0.0.1:8097"));
    agent.event_of(&large);
    let gone = scene.helper().within(&group).runs([tcp("127.0.0.1:8097")]);
    agent.event_of(&gone);

    let by_unit = journal.wait_for(&["--unit=app.service", "--output=json", ID], |said| {
        let entries = entries(said);
        (entries.len() == 2).then_some(entries)
    });
    for (entry, attempt) in by_unit.iter().zip([&alive, &gone]) {
        assert_eq!(entry["PORTWATCH_PID"], attempt.pid.to_string(), "{entry:#}");
        assert_eq!(entry["PORTWATCH_PORT"], "8097", "{entry:#}");
        assert_eq!(entry["PORTWATCH_CAUSE"], event.text("/diagnosis/cause"), "{entry:#}");
        assert_eq!(entry["PRIORITY"], "3", "{entry:#}");
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "portwatch", "{entry:#}");
    }
    // journald itself has added these for the running process.
    assert_eq!(by_unit[0]["OBJECT_PID"], alive.pid.to_string(), "{:#}", by_unit[0]);
    assert_eq!(by_unit[0]["OBJECT_COMM"], "binder", "{:#}", by_unit[0]);

    agent.end_by(Signal::TERM);
    let live = agent.look(|log| log.events.iter().map(|e| e.value.clone()).collect::<Vec<_>>());
    let stopped = ["--output=json", "PORTWATCH_STATE=stopped"];
    journal.wait_for(&stopped, |said| said.contains("portwatch").then_some(()));
    let said = run(&mut journal.portwatch(&["replay", "--journal", "--format", "json"]));
    said.is_result();
    let replayed: Vec<Value> =
        entries(&said.stdout).into_iter().filter(|v| v.get("diagnosis").is_some()).collect();
    assert_eq!(replayed, live);
}

/// After a restart of the journal, the sink continues, and the entries that it missed are
/// counted in it.
#[test]
fn a_restart_of_the_journal_loses_nothing_in_silence() {
    let mut journal = match Journal::start() {
        Ok(journal) => journal,
        Err(lacks) => return skip("journald", &lacks),
    };
    // No other test has this port: their records would be lost here as well.
    let scene = Scene::new();
    let arguments = ["run", "--format", "json", "--format", "journald", "--port", "8197"];
    let agent = Agent::start_command(&mut journal.portwatch(&arguments)).unwrap();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8197").listening()]);
    let refused = || {
        let refused = scene.helper().is_refused(tcp("127.0.0.1:8197"));
        agent.event_of(&refused);
        refused.pid
    };
    journal.restart(|| _ = refused());
    let pid = refused();
    let told = format!("PORTWATCH_PID={pid}");
    journal.wait_for(&["--output=json", &told], |said| said.contains("bind-failure").then_some(()));
    let lost = ["--output=json", "PORTWATCH_LOST_AT=sink.journald"];
    journal.wait_for(&lost, |said| {
        let counts = entries(said).into_iter().map(|entry| entry["PORTWATCH_COUNT"].clone());
        (counts.collect::<Vec<_>>() == ["1"]).then_some(())
    });
}

#[test]
fn the_catalog_is_one() {
    let journal = match Journal::start() {
        Ok(journal) => journal,
        Err(lacks) => return skip("journald", &lacks),
    };
    let catalog = include_str!("../../packaging/portwatch.catalog");
    let dumped = journal.catalog_of(catalog);
    for id in [
        "ee4bb6a7fbbd40b990cd543f3ab2e727",
        "486eecfdac354f6f90d9a2e3edf96cdd",
        "2e01abed993b4e358f3035d405661fcb",
    ] {
        assert!(dumped.contains(id), "{dumped}");
    }
    assert!(dumped.contains("Subject: Port @PORTWATCH_PORT@ is in use"), "{dumped}");
}
