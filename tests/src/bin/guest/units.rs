//! Services of the system: the old release, the supervisor, a collision, templates, TIME-WAIT
//! after a clean stop, a hand-over.

use serde_json::json;

use crate::stage::{Stage, answer, property, says, service, shell, systemctl};

pub fn old_release_in_another_unit(stage: &mut Stage) {
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8081");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8081");
    stage.starts("app-old.service");
    let event = stage.is_refused("app.service");
    says(&event, "listener", "old_instance", "systemctl stop app-old.service");
    event.includes(&json!({"diagnosis": {"holder": {"unit": "app-old.service"}}}));
    stage.paste(&event);
    stage.starts("app.service");
    assert_eq!(answer(8081), "ok\n");
}

/// It is killed, and the service manager restarts it.
pub fn restarted_after_a_kill(stage: &mut Stage) {
    let old = service("/opt/app/app-2.4.1 0.0.0.0:8082", "Restart=always\nRestartSec=100ms");
    stage.unit("app-old.service", &old);
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8082");
    stage.starts("app-old.service");
    let pid = property("app-old.service", "MainPID");
    shell(&format!(
        "kill {pid}; until [ $(systemctl show -P NRestarts app-old.service) = 1 ] && systemctl \
         is-active --quiet app-old.service; do sleep 0.1; done"
    ));
    let event = stage.is_refused("app.service");
    says(&event, "listener", "restarted", "systemctl stop app-old.service");
    let again = property("app-old.service", "MainPID").parse::<u32>().unwrap();
    event.includes(&json!({"diagnosis": {"holder": {"pid": again}}}));
    stage.paste(&event);
    stage.starts("app.service");
}

pub fn another_service(stage: &mut Stage) {
    stage.service("billing.service", "/usr/local/bin/billing 127.0.0.1:8083");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8083");
    stage.starts("billing.service");
    let event = stage.is_refused("app.service");
    says(&event, "wildcard", "other_service", "systemctl stop billing.service");
    stage.paste(&event);
    stage.starts("app.service");
}

pub fn an_instance_of_a_template(stage: &mut Stage) {
    stage.service("app@.service", "/opt/app/app-%i 0.0.0.0:8084");
    // Named as instances, so that they are removed.
    stage.instance("app@2.4.1.service");
    stage.instance("app@2.4.2.service");
    stage.starts("app@2.4.1.service");
    let event = stage.is_refused("app@2.4.2.service");
    says(&event, "listener", "old_instance", "systemctl stop app@2.4.1.service");
    stage.paste(&event);
    stage.starts("app@2.4.2.service");
}

/// A clean stop of a server that closes its connections first.
fn leave_time_wait(stage: &Stage, port: u16) {
    stage.starts("app-old.service");
    for _ in 0..3 {
        assert_eq!(answer(port), "ok\n");
    }
    systemctl(&["stop", "app-old.service"]);
}

pub fn time_wait_without_reuseaddr(stage: &mut Stage) {
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8085 --no-reuseaddr");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8085 --no-reuseaddr");
    leave_time_wait(stage, 8085);
    let event = stage.is_refused("app.service");
    event.includes(&json!({
        // Its unit's group was removed with it; the owner record has both.
        "time_wait": {
            "count": 3,
            "left_by": {"program": "app-2.4.1", "unit": "app-old.service"},
        },
        "diagnosis": {
            "cause": "time_wait.app_lacks_reuseaddr",
            "holder": {"class": "no_process"},
        },
    }));
}

pub fn time_wait_of_an_old_release_without(stage: &mut Stage) {
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8086 --no-reuseaddr");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8086");
    leave_time_wait(stage, 8086);
    let event = stage.is_refused("app.service");
    event.includes(&json!({
        "time_wait": {"count": 3},
        "diagnosis": {
            "cause": "time_wait.old_lacked_reuseaddr",
            "holder": {"class": "no_process"},
        },
    }));
}

pub fn time_wait_with_reuseaddr_is_silent(stage: &mut Stage) {
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8087");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8087");
    leave_time_wait(stage, 8087);
    stage.starts("app.service");
    is_silent(stage, 8087);
}

pub fn hand_over_by_reuseport_is_silent(stage: &mut Stage) {
    stage.service("app-old.service", "/opt/app/app-2.4.1 0.0.0.0:8088 --reuseport");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8088 --reuseport");
    stage.starts("app-old.service");
    stage.starts("app.service");
    systemctl(&["stop", "app-old.service"]);
    assert_eq!(answer(8088), "ok\n");
    is_silent(stage, 8088);
}

/// Nothing was reported on a port: neither before a later failed bind, nor with it.
fn is_silent(stage: &mut Stage, port: u16) {
    stage.service("fence.service", "/usr/local/bin/billing 127.0.0.1:22222");
    stage.service("fenced.service", "/usr/local/bin/billing 127.0.0.1:22222");
    stage.starts("fence.service");
    stage.fails("fenced.service");
    let first = stage.journal.event(|event| {
        event.number("/failure/port") == Some(port.into())
            || event.text("/process/unit") == "fenced.service"
    });
    assert_eq!(first.number("/failure/port"), Some(22222), "not silent\n{first}");
}
