//! Outcomes of services, with a real systemd: a manager of root's own, which has the system's
//! bus in a mount namespace of its own.

use std::{fs, path::Path, process::Command};

use portwatch_tests::{
    agent::Agent,
    cgroup::Slice,
    helper::EADDRINUSE,
    op::tcp,
    patience,
    process::Process,
    programs::{binder, installed, portwatch},
    scene::Scene,
    skip::skip,
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::ADDRESS;

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// Stays until its stdin ends, and keeps the mounts.
const MOUNTS: &str = "
    set -e
    mkdir -p /run/systemd /run/dbus
    mount -t tmpfs none /run/systemd
    mkdir /run/systemd/system
    mount -t tmpfs none /run/dbus
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
    echo mounted
    exec cat
";

/// A systemd, its bus, and the place that both are in.
pub struct Manager<'a> {
    scene: &'a Scene,
    folder: TempDir,
    mounts: Process,
    processes: Vec<Process>,
}

impl<'a> Manager<'a> {
    pub fn start(scene: &'a Scene, slice: &Slice) -> Self {
        let mut mounts = Command::new("unshare");
        mounts.args(["--mount", "--propagation", "private", "sh", "-c", MOUNTS]);
        let mounts = Process::start(&mut mounts, Signal::TERM).unwrap();
        let text = mounts.stdout.wait_for_text(patience(), "mounted");
        text.unwrap_or_else(|why| panic!("no mounts ({why:?})\n{}", mounts.said()));
        let folder = TempDir::new().unwrap();
        let mut manager = Self { scene, folder, mounts, processes: Vec::new() };
        let address = format!("--address={BUS}");
        let mut bus = manager.command("dbus-daemon");
        bus.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]).arg(address);
        let bus = Process::start(&mut bus, Signal::KILL).unwrap();
        bus.stdout.wait_for_text(patience(), "unix:").unwrap();
        let mut systemd = manager.command(SYSTEMD);
        systemd.args(["--user", "--log-target=console"]);
        slice.group("init.scope").confine(&mut systemd);
        let systemd = Process::start(&mut systemd, Signal::TERM).unwrap();
        manager.processes = vec![systemd, bus];
        // It uses a bus that it has not started only if it is asked to, and leaves it when it
        // reloads.
        let pid = manager.processes[0].pid();
        manager.shell(&format!(
            "until systemctl --user is-system-running --wait; do sleep 0.1; done
            until busctl --address={BUS} status org.freedesktop.systemd1; do
                kill -USR1 {pid}
                sleep 0.1
            done"
        ));
        manager
    }

    /// In its mounts and the scene's network namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.mounts.pid().to_string()]).arg(program);
        for name in ["HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, self.folder.path());
        }
        command.env("DBUS_SESSION_BUS_ADDRESS", BUS);
        self.scene.netns.confine(&mut command);
        command
    }

    pub fn shell(&self, script: &str) {
        let mut shell = self.command("timeout");
        let output = shell.args(["15", "sh", "-c", script]).output().unwrap();
        let said = self.processes.first().map(Process::said).unwrap_or_default();
        assert!(output.status.success(), "{script}: {output:?}\n{said}");
    }

    /// Writes and starts a service that binds the address once, and exits.
    fn starts(&self, name: &str, more: &str) {
        let op = tcp(ADDRESS).listening();
        let text = format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\n{more}\n\
             ExecStart={} vanish {op}\n",
            binder().display(),
        );
        self.writes(&[(name, &text)]);
        self.shell(&format!("systemctl --user start --no-block {name}"));
    }

    /// Does something with units, on its bus.
    pub fn systemctl(&self, what: &str) {
        let pid = self.processes.first().expect("it has been started").pid();
        self.shell(&format!("until systemctl --user {what}; do kill -USR1 {pid}; sleep 0.1; done"));
    }

    /// Writes units, and has them read.
    pub fn writes(&self, files: &[(&str, &str)]) {
        let units = self.folder.path().join("systemd/user");
        fs::create_dir_all(&units).unwrap();
        for (name, text) in files {
            fs::write(units.join(name), text).unwrap();
        }
        self.systemctl("daemon-reload");
    }
}

/// Whether there is no systemd here to test with.
pub fn is_missing() -> bool {
    let missing = !Path::new(SYSTEMD).exists() || installed("dbus-daemon").is_none();
    if missing {
        skip("outcomes_of_services", "no systemd or dbus-daemon");
    }
    missing
}

#[test]
fn a_service_is_asked_about() {
    if is_missing() {
        return;
    }
    let (scene, slice) = (Scene::new(), Slice::new());
    let manager = Manager::start(&scene, &slice);
    let mut agent = manager.command(portwatch().unwrap());
    agent.args(["run", "--format", "json", "--storm-window", "0s", "--outcome-window", "1s"]);
    let agent = Agent::start_command(&mut agent).unwrap();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let first = |unit: &str| {
        agent.wait_for(unit, |event| {
            event.text("/process/unit") == unit && event.is_in(&scene.netns)
        })
    };

    manager.starts("once.service", "");
    let outcome = agent.outcome_of(&first("once.service"));
    assert_eq!(outcome["outcome"], "exited", "{outcome:#}");
    assert_eq!(outcome["exit"], json!({"status": EADDRINUSE, "signal": null}), "{outcome:#}");
    assert_eq!(
        outcome["unit"],
        json!({
            "name": "once.service", "kind": "unit", "restarted": false, "result": "exit-code",
            "restarts": 0,
        }),
    );
    assert_eq!(outcome["gaps"], json!([]));

    manager.starts("app.service", "Restart=always\nRestartSec=300ms");
    let outcome = agent.outcome_of(&first("app.service"));
    assert_eq!(outcome["outcome"], "exited", "{outcome:#}");
    assert_eq!(outcome["unit"]["restarted"], true, "{outcome:#}");
    assert!(outcome["unit"]["restarts"].as_u64() > Some(0), "{outcome:#}");
    drop(holder);
    let recovered = agent.wait_until("its recovery", patience(), |log| {
        log.outcomes.iter().find(|outcome| outcome["outcome"] == "recovered").cloned()
    });
    assert_eq!(recovered["unit"]["name"], "app.service", "{recovered:#}");
    manager.shell("systemctl --user stop app.service");
}
