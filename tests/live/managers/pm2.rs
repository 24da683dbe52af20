//! pm2, which npm has and Debian does not.

use std::{fs, os::unix::fs::chown, path::Path, process::Command};

use portwatch_tests::{
    op::tcp,
    paste::{self, Pasted, Way},
    patience,
    process::Process,
    programs,
    scene::Scene,
    skip::skip,
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::{ADDRESS, ELSEWHERE, NOBODY, as_user, holder};

/// A server of Node.
const APP: &str = r#"
const [, host, port] = process.env.ADDRESS.match(/(.*):(.*)/);
require("http").createServer((_, answer) => answer.end("ok")).listen(port, host);
"#;

/// A daemon of a user without a login.
struct Pm2 {
    folder: TempDir,
    _daemon: Process,
}

impl Pm2 {
    /// Starts one; `None` if it is not installed.
    fn start(test: &str, scene: &Scene) -> Option<Self> {
        let Some(pm2) = programs::installed("pm2") else {
            skip("pm2", &format!("{test} needs pm2"));
            return None;
        };
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("app.js"), APP).unwrap();
        for part in ["home", "home/logs", "home/pids"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        fs::write(folder.path().join("home/module_conf.json"), "{}").unwrap();
        for part in ["", "home", "home/logs", "home/pids", "home/module_conf.json"] {
            chown(folder.path().join(part), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut command = as_user(NOBODY);
        // As pm2 starts it, but not on its own.
        let program = pm2.canonicalize().unwrap();
        let program = program.parent().and_then(Path::parent).unwrap().join("lib/Daemon.js");
        command.arg("node").arg(program).env("PM2_HOME", folder.path().join("home"));
        scene.netns.confine(&mut command);
        let daemon = Process::start(&mut command, Signal::TERM).unwrap();
        let ready = daemon.stdout.wait_for_text(patience(), "SIGTERM timeout");
        assert!(ready.is_ok(), "no daemon\n{}", daemon.said());
        Some(Self { folder, _daemon: daemon })
    }

    /// Starts an app, and waits until it accepts connections.
    fn runs(&self, scene: &Scene, name: &str, address: &str, options: &[&str]) {
        let mut command = as_user(NOBODY);
        command.args(["pm2", "start", "app.js", "--name", name]).args(options);
        command.env("PM2_HOME", self.folder.path().join("home")).env("ADDRESS", address);
        let output = command.current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let deadline = std::time::Instant::now() + patience();
        while scene.netns.connect(address.parse().unwrap()).is_err() {
            assert!(std::time::Instant::now() < deadline, "{name} does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn an_app_of_pm2() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let Some(pm2) = Pm2::start("an_app_of_pm2", &scene) else { return };
        pm2.runs(&scene, "web", ADDRESS, &[]);
        pm2.runs(&scene, "other", ELSEWHERE, &[]);
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        event.includes(&json!({"sockets": [{"holders": [{"supervisor": {"kind": "pm2"}}]}]}));
        Pasted::of(&scene, &event)
            .by(way)
            .frees(&[holder(&event)], tcp(ADDRESS).reuseaddr().listening());
    }
}

/// In cluster mode the daemon listens for the app.
#[test]
fn a_cluster_of_pm2() {
    let scene = Scene::new();
    let Some(pm2) = Pm2::start("a_cluster_of_pm2", &scene) else { return };
    pm2.runs(&scene, "web", ADDRESS, &["--instances", "2"]);
    let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    event.includes(&json!({"diagnosis": {"holder": {"class": "app_daemon"}}}));
    assert_eq!(paste::endings(&event), [""; 0], "{event}");
    let list = paste::command(&event, 0);
    let shown = paste::show(&list);
    assert!(shown.contains(" web "), "{shown}\n{event}");
    // It serves all its apps, so nothing is stopped for one port.
    let mut free = Command::new(programs::portwatch().unwrap());
    free.args(["free", ADDRESS, "--yes", "--even-if-used"]);
    scene.netns.confine(&mut free);
    assert_eq!(free.status().unwrap().code(), Some(3));
    assert!(paste::is_alive(holder(&event)));
    // The text says how to stop it.
    assert!(event.advice(0).contains("pm2 stop NAME"), "{event}");
    let _ = paste::run(&list.replace("pm2 list", "pm2 stop web"));
    assert!(paste::is_alive(holder(&event)));
    scene.helper().succeeds([tcp(ADDRESS).reuseaddr().listening()]);
}
