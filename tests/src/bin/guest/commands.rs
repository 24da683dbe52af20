//! The first command of an event, run as it is printed, where a unit is not what is to be
//! stopped, and where it is: the port comes free, and what else is there goes on.

use std::{fs, process::Command};

use portwatch_tests::event::Event;
use serde_json::json;

use crate::{
    PAYLOAD,
    sessions::{as_deploy, end_linger, linger},
    stage::{Stage, answer, first_command, service, shell, systemctl, try_systemctl},
};

/// Waits until something listens on a port.
fn listens(port: u16) {
    shell(&format!(
        "timeout 100 sh -c 'until ss -tlnH sport = :{port} | grep -q .; do sleep 0.2; done'"
    ));
}

fn pid(event: &Event) -> u64 {
    event.number("/diagnosis/holder/pid").unwrap_or_else(|| panic!("no holder\n{event}"))
}

/// The first command ends the process only, whatever unit it is in. The failing unit then starts.
fn ends_the_process_only(stage: &Stage, event: &Event) {
    let pid = pid(event);
    assert_eq!(first_command(event), format!("kill {pid}"), "\n{event}");
    stage.paste(event);
    // Its parent may not reap it.
    shell(&format!(
        "timeout 100 sh -c 'until ! grep -qs \"^State:.[^ZX]\" /proc/{pid}/status; do sleep 0.1; done'"
    ));
    stage.starts("app.service");
}

pub fn several_apps_of_one_unit(stage: &mut Stage) {
    let apps = "/bin/sh -c '/opt/app/app-2.4.1 0.0.0.0:8100 & /usr/local/bin/billing 0.0.0.0:8101 & \
                wait; wait'";
    stage.unit("apps.service", &format!("[Service]\nExecStart={apps}\n"));
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8100");
    stage.starts("apps.service");
    listens(8100);
    listens(8101);
    let event = stage.is_refused("app.service");
    ends_the_process_only(stage, &event);
    assert_eq!(answer(8101), "ok\n");
}

/// The same unit runs the failing program.
pub fn both_in_one_unit(stage: &mut Stage) {
    let both = "/bin/sh -c '/opt/app/app-2.4.1 0.0.0.0:8102 & \
                until ss -tlnH sport = :8102 | grep -q .; do sleep 0.2; done; \
                /opt/app/app-2.4.2 0.0.0.0:8102; exec sleep 1000'";
    stage.unit("both.service", &format!("[Service]\nExecStart={both}\n"));
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8102");
    stage.starts("both.service");
    let event = stage.journal.event(|event| event.text("/process/unit") == "both.service");
    ends_the_process_only(stage, &event);
    assert!(try_systemctl(&["is-active", "both.service"]));
}

/// A process of the unit's last run, which its stop has left.
pub fn a_leftover_of_the_unit(stage: &mut Stage) {
    let old = "/bin/sh -c '/opt/app/app-2.4.1 0.0.0.0:8103 & exec sleep 1000'";
    stage.unit("app.service", &format!("[Service]\nExecStart={old}\nKillMode=process\n"));
    stage.starts("app.service");
    listens(8103);
    systemctl(&["stop", "app.service"]);
    // With the default KillMode systemd would end it when the start fails.
    let new = service("/opt/app/app-2.4.2 0.0.0.0:8103", "KillMode=process");
    stage.unit("app.service", &new);
    let event = stage.is_refused("app.service");
    ends_the_process_only(stage, &event);
}

/// A daemon that has gone to the background is its unit's main process.
pub fn a_forking_service(stage: &mut Stage) {
    let old = "/bin/sh -c '/opt/app/app-2.4.1 0.0.0.0:8104 &'";
    stage.unit("app-old.service", &format!("[Service]\nType=forking\nExecStart={old}\n"));
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8104");
    stage.starts("app-old.service");
    listens(8104);
    let event = stage.is_refused("app.service");
    assert_eq!(first_command(&event), "systemctl stop app-old.service", "\n{event}");
    stage.paste(&event);
    stage.starts("app.service");
}

/// What a scope's command runs: the holder, and another program.
const TWO: &str =
    "/usr/local/bin/billing 0.0.0.0:8106 > /dev/null & exec /opt/app/app-2.4.0 0.0.0.0:8105";

/// `systemd-run --scope`.
pub fn a_transient_scope(stage: &mut Stage) {
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8105");
    stage.somebody_runs(
        Command::new("systemd-run").args(["--scope", "--unit=job", "sh", "-c", TWO]),
    );
    listens(8106);
    let event = stage.is_refused("app.service");
    event.includes(&json!({"diagnosis": {"holder": {"unit": "job.scope"}}}));
    ends_the_process_only(stage, &event);
    assert_eq!(answer(8106), "ok\n");
    systemctl(&["stop", "job.scope"]);
}

/// The same below a user's manager.
pub fn a_users_scope(stage: &mut Stage) {
    linger();
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8105");
    let run = as_deploy(&format!("systemd-run --user --scope --unit=job sh -c '{TWO}'"));
    stage.somebody_runs(Command::new("sh").args(["-c", &run]));
    listens(8106);
    let event = stage.is_refused("app.service");
    event.includes(&json!({"diagnosis": {"holder": {"unit": "job.scope", "user": "deploy"}}}));
    ends_the_process_only(stage, &event);
    assert_eq!(answer(8106), "ok\n");
    shell(&as_deploy("systemctl --user stop job.scope"));
    end_linger();
}

/// What at has started is no part of atd.service.
pub fn started_by_at(stage: &mut Stage) {
    systemctl(&["start", "atd.service"]);
    shell("echo '/opt/app/app-2.4.0 0.0.0.0:8107' | at now 2>&1");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8107");
    listens(8107);
    let event = stage.is_refused("app.service");
    event.includes(&json!({"diagnosis": {"holder": {"unit": "atd.service"}}}));
    ends_the_process_only(stage, &event);
    assert!(try_systemctl(&["is-active", "atd.service"]));
    systemctl(&["stop", "atd.service"]);
}

/// Nor what cron has started of cron.service.
pub fn started_by_cron(stage: &mut Stage) {
    let table = "/etc/cron.d/app";
    fs::write(table, "* * * * * root /opt/app/app-2.4.0 0.0.0.0:8108 > /dev/null\n").unwrap();
    systemctl(&["start", "cron.service"]);
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8108");
    listens(8108);
    // It would start it again.
    fs::remove_file(table).unwrap();
    let event = stage.is_refused("app.service");
    event.includes(&json!({"diagnosis": {"holder": {"unit": "cron.service"}}}));
    ends_the_process_only(stage, &event);
    assert!(try_systemctl(&["is-active", "cron.service"]));
    systemctl(&["stop", "cron.service"]);
}

/// A container with a system of its own is only shown.
pub fn a_machine(stage: &mut Stage) {
    shell(&format!(
        "mkdir -p /tmp/machine/usr/lib /tmp/machine/etc && cp {PAYLOAD}/server /tmp/machine/server && \
         cp /etc/os-release /tmp/machine/usr/lib/os-release"
    ));
    stage.unit(
        "nspawn.service",
        "[Service]\nExecStart=systemd-nspawn --quiet --machine=web --directory=/tmp/machine /server \
         0.0.0.0:8109\n",
    );
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8109");
    stage.starts("nspawn.service");
    listens(8109);
    let event = stage.is_refused("app.service");
    assert_eq!(first_command(&event), "machinectl status web", "\n{event}");
    let shown = shell("machinectl status web");
    assert!(shown.contains("Leader:") && shown.contains("/server"), "{shown}");
    let steps = event.at("/diagnosis/moves").to_string();
    assert!(steps.contains("machinectl poweroff web"), "{event}");
}

/// A unit of a user with a socket: both are the user's manager's.
pub fn a_users_socket_unit(stage: &mut Stage) {
    linger();
    let folder = "/home/deploy/.config/systemd/user";
    fs::create_dir_all(folder).unwrap();
    fs::write(format!("{folder}/web.socket"), "[Socket]\nListenStream=0.0.0.0:8112\n").unwrap();
    fs::write(format!("{folder}/web.service"), service("/opt/app/app-2.4.1 0.0.0.0:1", ""))
        .unwrap();
    shell("chown -R deploy: /home/deploy/.config");
    shell(&as_deploy("systemctl --user daemon-reload"));
    shell(&as_deploy("systemctl --user start web.socket"));
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8112");
    let event = stage.is_refused("app.service");
    event.includes(&json!({"diagnosis": {"holder": {"class": "socket_unit"}}}));
    let shown = stage.paste(&event);
    if first_command(&event).contains("list-sockets") {
        assert!(shown.contains("web.socket"), "{shown}\n{event}");
        shell(&as_deploy("systemctl --user stop web.socket"));
    }
    stage.starts("app.service");
    end_linger();
}
