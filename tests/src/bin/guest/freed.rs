//! `portwatch free` with a whole systemd: it stops what the event says, and nothing else.

use std::{collections::BTreeMap, fs, process::Command};

use portwatch_tests::event::Event;
use serde_json::{Value, json};

use crate::{
    sessions::{as_deploy, end_linger, linger},
    stage::{Stage, answer, first_command, service, shell, try_systemctl},
};

/// Frees the port of an event, and returns the action.
#[track_caller]
pub fn free(event: &Event) -> Value {
    let before = servers();
    let port = event.number("/failure/port").unwrap();
    let address = format!("{}:{port}", event.text("/failure/address"));
    let mut command = Command::new("portwatch");
    command.args(["free", &address, "--yes", "--even-if-used", "--reuseaddr"]);
    command.args(["--timeout", "100s", "--format", "json"]);
    if let Some(name) = event.at("/netns/name").as_str() {
        command.args(["--netns", name]);
    }
    let said = command.output().unwrap();
    let action: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!(action["result"], "freed", "{action:#}\n{event}");
    let done = action["steps"][0]["command"].as_str().unwrap();
    assert_eq!(done, first_command(event), "{action:#}\n{event}");
    let after = servers();
    for (pid, cgroup) in before {
        let is_named = |word: &str| word == pid || cgroup.contains(word);
        let may_end = done.split_whitespace().any(|word| is_named(word) && word != "kill");
        assert!(may_end || after.contains_key(&pid), "{done} ended {pid} in {cgroup}");
    }
    action
}

/// All servers of the scenarios by their pid, with their control group.
fn servers() -> BTreeMap<String, String> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().into_string().ok());
    let server = |pid: String| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let is_one = program.starts_with("/opt/app") || program.ends_with("billing");
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        is_one.then_some((pid, cgroup))
    };
    pids.filter_map(server).collect()
}

/// 2.4.0 was started by hand, the deploy of 2.4.2 has failed: one command, and the deploy.
pub fn the_worked_example(stage: &mut Stage) {
    stage.service("billing.service", "/usr/local/bin/billing 0.0.0.0:8120");
    stage.starts("billing.service");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8080");
    let by_hand = "setsid --fork /opt/app/app-2.4.0 0.0.0.0:8080 < /dev/null 2> /dev/null";
    stage.somebody_runs(Command::new("su").args(["--login", "deploy", "--command", by_hand]));
    assert_eq!(answer(8080), "ok\n");
    let event = stage.is_refused("app.service");
    let pid = event.number("/diagnosis/holder/pid").unwrap();
    let note = shell(
        "portwatch free 8080 --yes --reuseaddr --format markdown && systemctl start app.service",
    );
    assert_eq!(answer(8080), "ok\n");
    assert_eq!(answer(8120), "ok\n");
    let sent = format!("sent SIGTERM to app-2.4.0\\[{pid}\\]");
    for part in ["What is on the port", &sent, "exited after SIGTERM", "- freed"] {
        assert!(note.contains(part), "{part}\n{note}");
    }
    // The agent has written it down.
    let entry = shell(
        "timeout 100 sh -c 'until journalctl --identifier=portwatch --output=cat \
         PORTWATCH_ACTION=freed PORTWATCH_PORT=8080 | grep -q .; do sleep 0.2; done'; \
         journalctl --identifier=portwatch --output=json PORTWATCH_ACTION=freed \
         PORTWATCH_PORT=8080 | tail -n 1",
    );
    let entry: Value = serde_json::from_str(&entry).unwrap();
    assert!(entry["MESSAGE"].as_str().unwrap().contains("is free after"), "{entry:#}");
    for history in ["--journal", "/var/lib/portwatch"] {
        let history = shell(&format!("portwatch history {history} --port 8080 --format json"));
        let history: Value = serde_json::from_str(&history).unwrap();
        let freed = history["freed"].as_array().unwrap();
        let ours = freed.iter().find(|row| row["port"] == 8080 && row["freed"] != 0);
        assert!(ours.is_some_and(|row| row["by"]["root"] != json!(null)), "{history:#}");
    }
}

/// Nobody has connected, so the service does not run.
pub fn a_socket_unit_alone(stage: &mut Stage) {
    stage.service("web.service", "/opt/app/app-2.4.1 0.0.0.0:1");
    stage.unit("web.socket", "[Socket]\nListenStream=0.0.0.0:8121\n");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8121");
    stage.starts("web.socket");
    let event = stage.is_refused("app.service");
    free(&event);
    assert!(!try_systemctl(&["is-active", "web.socket"]));
    stage.starts("app.service");
}

pub fn a_users_socket_unit(stage: &mut Stage) {
    linger();
    let folder = "/home/deploy/.config/systemd/user";
    fs::create_dir_all(folder).unwrap();
    fs::write(format!("{folder}/web.socket"), "[Socket]\nListenStream=0.0.0.0:8122\n").unwrap();
    fs::write(format!("{folder}/web.service"), service("/opt/app/app-2.4.1 0.0.0.0:1", ""))
        .unwrap();
    shell("chown -R deploy: /home/deploy/.config");
    shell(&as_deploy("systemctl --user daemon-reload"));
    shell(&as_deploy("systemctl --user start web.socket"));
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8122");
    let event = stage.is_refused("app.service");
    let command = first_command(&event);
    let mut free = Command::new("portwatch");
    free.args(["free", "8122", "--yes", "--even-if-used", "--format", "json"]);
    let said = free.output().unwrap();
    let action: Value = serde_json::from_slice(&said.stdout).unwrap();
    if command.contains("list-sockets") {
        // Which of the user's sockets it is only the user can tell.
        assert_eq!(action["result"], "refused", "{action:#}\n{event}");
        shell(&as_deploy("systemctl --user stop web.socket"));
    } else {
        assert_eq!(action["result"], "freed", "{action:#}\n{event}");
    }
    stage.starts("app.service");
    end_linger();
}

/// A user's process in the system's unit: the user may not stop that.
pub fn without_the_right(stage: &mut Stage) {
    let old = service("/opt/app/app-2.4.1 0.0.0.0:8123", "User=deploy");
    stage.unit("app-old.service", &old);
    stage.starts("app-old.service");
    let mut free = Command::new("runuser");
    free.args(["-u", "deploy", "--", "portwatch", "free", "8123", "--yes", "--even-if-used"]);
    let said = free.args(["--format", "json"]).output().unwrap();
    assert_eq!(said.status.code(), Some(4), "{said:?}");
    let action: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(action["result"], "failed", "{action:#}");
    assert!(action["why"].as_str().unwrap().contains("app-old.service"), "{action:#}");
    assert_eq!(answer(8123), "ok\n");
}
