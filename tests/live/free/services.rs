//! Units of a real systemd, which stops them over D-Bus.

use portwatch_tests::{
    cgroup::Slice,
    command::{Said, run},
    helper::Helper,
    op::tcp,
    paste::is_alive,
    programs::{binder, portwatch},
    scene::Scene,
};
use serde_json::{Value, json};

use super::{ADDRESS, ANYHOW, BESIDE};
use crate::outcome::manager::{Manager, is_missing};

/// Runs `portwatch free` where it reaches that systemd.
fn free(manager: &Manager<'_>, options: &[&str]) -> (Said, Value) {
    let mut command = manager.command(portwatch().unwrap());
    command.args(["free", ADDRESS, "--format", "json"]).args(options);
    let said = run(&mut command);
    let action = serde_json::from_str(&said.stdout).unwrap_or_else(|why| panic!("{why}\n{said}"));
    (said, action)
}

/// Starts what a file says, and waits until somebody listens.
fn starts(manager: &Manager<'_>, name: &str) {
    manager.systemctl(&format!("start {name}"));
    manager.shell("until grep -q ':1F90 0' /proc/net/tcp; do sleep 0.05; done");
}

fn server(restart: &str) -> String {
    format!(
        "[Service]\nType=notify\nRestart={restart}\nRestartSec=0\nExecStart={} {ADDRESS}\n",
        binder().with_file_name("server").display(),
    )
}

/// A unit, and an instance of a template: the one is stopped that holds the port.
#[test]
fn a_unit() {
    if is_missing() {
        return;
    }
    let (scene, slice) = (Scene::new(), Slice::new());
    let manager = Manager::start(&scene, &slice);
    let beside = Helper::new(&scene.netns).holds([tcp(BESIDE).listening()]);
    for name in ["app.service", "app@blue.service"] {
        manager.writes(&[(&name.replace("blue", ""), &server("always"))]);
        starts(&manager, name);
        let (said, action) = free(&manager, &["--yes"]);
        assert_eq!((said.code, &action["result"]), (3, &json!("refused")), "{action:#}");
        let (said, action) = free(&manager, &ANYHOW);
        assert_eq!((said.code, &action["result"]), (0, &json!("freed")), "{action:#}");
        assert_eq!(action["steps"][0]["by"], "systemd", "{action:#}");
        assert_eq!(action["steps"][0]["what"], format!("systemd stopped {name}"));
        manager.shell(&format!("! systemctl --user is-active {name}"));
        assert!(is_alive(beside.pid()));
    }
}
