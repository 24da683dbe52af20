//! What each of the service's capabilities is for: each is removed in turn.

use std::fs;

use portwatch_tests::event::Event;
use serde_json::Value;

use crate::stage::{Stage, property, service, shell, systemctl, try_systemctl};

const DROP_IN: &str = "/run/systemd/system/portwatch.service.d";

/// Instead of CAP_SYS_ADMIN, if no other namespace must be entered.
const FOR_ONE_NAMESPACE: &str =
    "CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH";

/// Returns what is reported of three failed binds: with a holder of another user, in a network
/// namespace, and of a process that has exited with a unit that remains.
fn seen(stage: &mut Stage) -> Vec<String> {
    let inside = "NetworkNamespacePath=/run/netns/green";
    let (old, new) = ("/opt/app/app-2.4.1 0.0.0.0:8098", "/opt/app/app-2.4.2 0.0.0.0:8098");
    stage.unit("app-old.service", &service(old, "User=deploy"));
    stage.service("app.service", new);
    stage.unit("blue-old.service", &service(old, inside));
    stage.unit("blue.service", &service(new, inside));
    let mut lines = Vec::new();
    for (holder, refused) in
        [("app-old.service", "app.service"), ("blue-old.service", "blue.service")]
    {
        stage.starts(holder);
        stage.fails(refused);
        let event = stage.journal.event(|event| event.text("/process/unit") == refused);
        lines.push(about(&event));
    }
    let goes_on = "/bin/sh -c '/opt/app/app-2.4.2 0.0.0.0:8098; exec sleep 60'";
    stage.unit("shell.service", &format!("[Service]\nExecStart={goes_on}\n"));
    stage.starts("shell.service");
    let event = stage.journal.event(|event| event.number("/failure/port") == Some(8098));
    lines.push(format!("{} in {}", about(&event), event.at("/process/unit")));
    lines
}

fn about(event: &Event) -> String {
    let gaps: Vec<_> = event.list("/gaps").iter().filter_map(|gap| gap["what"].as_str()).collect();
    let holder = event.at("/diagnosis/holder/pid");
    let holder = if holder == &Value::Null { "nobody" } else { "the holder" };
    format!("{} {holder} {gaps:?}", event.text("/diagnosis/cause"))
}

pub fn each_capability_is_needed(stage: &mut Stage) {
    shell("ip netns add green && ip -n green link set lo up");
    fs::create_dir_all(DROP_IN).unwrap();
    let all = seen(stage);
    println!("       with all: {all:?}");
    stage.strike();
    for name in property("portwatch.service", "CapabilityBoundingSet").split(' ') {
        restart_with(&format!("CapabilityBoundingSet=~{name}"));
        if property("portwatch.service", "ActiveState") == "active" {
            let less = seen(stage);
            println!("       without {name}: {less:?}");
            assert_ne!(less, all, "{name} is not needed");
        } else {
            println!("       without {name}: does not start");
        }
        stage.strike();
    }
    restart_with(&format!("CapabilityBoundingSet=\nCapabilityBoundingSet={FOR_ONE_NAMESPACE}"));
    let less = seen(stage);
    println!("       with those for one network namespace: {less:?}");
    assert_eq!(less[0], all[0]);
    assert_ne!(less[1], all[1]);
    stage.strike();
    fs::remove_file(format!("{DROP_IN}/rights.conf")).unwrap();
    systemctl(&["daemon-reload"]);
    systemctl(&["restart", "portwatch.service"]);
    shell("ip netns delete green");
}

/// Restarts the service with a drop-in, whether it comes up or not.
fn restart_with(setting: &str) {
    fs::write(format!("{DROP_IN}/rights.conf"), format!("[Service]\n{setting}\n")).unwrap();
    systemctl(&["daemon-reload"]);
    try_systemctl(&["stop", "portwatch.service"]);
    try_systemctl(&["reset-failed", "portwatch.service"]);
    try_systemctl(&["start", "portwatch.service"]);
}
