//! People: a login session, a user's own service manager.

use std::{fs, process::Command};

use portwatch_tests::event::Event;
use serde_json::json;

use crate::{
    journal,
    stage::{Stage, answer, says, service, shell, try_systemctl},
};

const HOME: &str = "/home/deploy";

/// The worked example: 2.4.0 was started by hand, and 2.4.2 is deployed.
pub fn squatter_in_a_login_session(stage: &mut Stage) {
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8080");
    let by_hand = "setsid --fork /opt/app/app-2.4.0 0.0.0.0:8080 < /dev/null 2> /dev/null";
    stage.somebody_runs(Command::new("su").args(["--login", "deploy", "--command", by_hand]));
    assert_eq!(answer(8080), "ok\n");
    let event = stage.is_refused("app.service");
    let pid = event.number("/diagnosis/holder/pid").unwrap();
    says(&event, "listener", "squatter", &format!("kill {pid}"));
    let session = event.text("/diagnosis/holder/session");
    event.includes(&json!({"diagnosis": {
        "holder": {"user": "deploy", "unit": format!("session-{session}.scope")},
    }}));
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let scope = format!("/user-1004.slice/session-{session}.scope");
    assert!(cgroup.trim_end().ends_with(&scope), "{cgroup}");
    // The suggested action helps, and TIME-WAIT causes no second failure.
    stage.paste(&event);
    shell(&format!("while kill -0 {pid} 2> /dev/null; do sleep 0.1; done"));
    assert_ne!(shell("ss -tanH state time-wait 'sport = :8080'"), "", "no connection was left");
    stage.starts("app.service");
    assert_eq!(answer(8080), "ok\n");
}

/// Runs a command for the user's own manager, which runs without a session.
pub fn as_deploy(command: &str) -> String {
    format!("runuser -u deploy -- env XDG_RUNTIME_DIR=/run/user/1004 {command}")
}

fn write_users_unit(name: &str, command: &str, more: &str) {
    let folder = format!("{HOME}/.config/systemd/user");
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/{name}"), service(command, more)).unwrap();
    shell(&format!("chown -R deploy: {HOME}/.config"));
    linger();
    shell(&as_deploy("systemctl --user daemon-reload"));
}

/// Lets the user's manager run without a session.
pub fn linger() {
    shell("loginctl enable-linger deploy");
    // logind may still know its last run.
    shell("systemctl start user@1004.service");
}

/// Removes everything for the next scenario.
pub fn end_linger() {
    shell("loginctl disable-linger deploy");
    try_systemctl(&["stop", "user@1004.service"]);
    fs::remove_dir_all(format!("{HOME}/.config")).ok();
}

pub fn holder_in_a_users_unit(stage: &mut Stage) {
    write_users_unit("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8090", "Restart=always");
    shell(&as_deploy("systemctl --user start app-old.service"));
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8090");
    let event = stage.is_refused("app.service");
    // Another user's program is the same only if its file says so, and the failing process may
    // have exited before that could be read.
    event.includes(&json!({"diagnosis": {
        "cause": "listener",
        "holder": {"unit": "app-old.service", "user": "deploy"},
    }}));
    // Only the user may ask a user's manager, so Restart= is a gap; the command that stops the
    // unit is suggested all the same.
    assert_eq!(event.at("/sockets/0/holders/0/supervisor/name"), "app-old.service", "\n{event}");
    let gaps = event.list("/gaps").iter().filter(|gap| gap["what"] == "supervisor").count();
    assert_eq!((restart_of_holder(&event), gaps), (None, 1), "\n{event}");
    // The command must work for root.
    stage.paste(&event);
    stage.starts("app.service");
    end_linger();
}

fn restart_of_holder(event: &Event) -> Option<&str> {
    event.at("/sockets/0/holders/0/supervisor/restart").as_str()
}

pub fn refused_in_a_users_unit(stage: &mut Stage) {
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8091");
    stage.starts("app.service");
    write_users_unit("dev.service", "/opt/app/app-2.5.0 0.0.0.0:8091", "");
    shell(&format!("! {}", as_deploy("systemctl --user start dev.service")));
    let event = stage.journal.event(|event| event.text("/process/unit") == "dev.service");
    journal::has(&["_UID=0", "OBJECT_SYSTEMD_USER_UNIT=dev.service"], &event);
    event.includes(&json!({"process": {"user": "deploy"}, "diagnosis": {
        "holder": {"unit": "app.service"},
    }}));
    end_linger();
}
