//! xinetd, with a configuration of the test's own at the usual path.

use std::{fs, os::unix::process::CommandExt as _, process::Command};

use portwatch_tests::{
    op::tcp, paste, patience, process::Process, programs, scene::Scene, skip::skip,
};
use rustix::{
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::Signal,
    thread::{UnshareFlags, unshare_unsafe},
};
use serde_json::json;
use tempfile::TempDir;

use super::{ADDRESS, ELSEWHERE, holder};

fn service(name: &str, port: &str) -> String {
    format!(
        "service {name}\n{{\n\ttype = UNLISTED\n\tport = {port}\n\tbind = 127.0.0.1\n\t\
         socket_type = stream\n\tprotocol = tcp\n\twait = no\n\tuser = root\n\t\
         server = /bin/cat\n\tdisable = no\n}}\n"
    )
}

/// It listens for several programs: what the command shows names the one, and the text says what
/// to do about it.
#[test]
fn a_service_of_xinetd() {
    let Some(xinetd) = programs::installed("xinetd") else {
        return skip("managers", "xinetd is not installed");
    };
    let (scene, folder) = (Scene::new(), TempDir::new().unwrap());
    let at = folder.path().to_owned();
    for (name, address) in [("web-shop", ADDRESS), ("other", ELSEWHERE)] {
        let (_, port) = address.split_once(':').unwrap();
        fs::write(at.join(name), service(name, port)).unwrap();
    }
    let mut command = Command::new(xinetd);
    // It has no stdout.
    let logs = TempDir::new().unwrap();
    let log = logs.path().join("log");
    command.args(["-dontfork", "-stayalive", "-filelog"]).arg(&log);
    // It removes this file when it ends.
    command.arg("-pidfile").arg(logs.path().join("pid"));
    scene.netns.confine(&mut command);
    let own = at.clone();
    // SAFETY: system calls, which are safe between fork and exec; a namespace changes, the
    // sharing of memory and descriptors does not.
    unsafe {
        command.pre_exec(move || {
            unshare_unsafe(UnshareFlags::NEWNS)?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            Ok(mount_bind(&own, "/etc/xinetd.d")?)
        });
    }
    let daemon = Process::start(&mut command, Signal::TERM).unwrap();
    let mut tail = Command::new("tail");
    let tail = Process::start(tail.args(["-n", "+1", "-F"]).arg(&log), Signal::KILL).unwrap();
    let ready = tail.stdout.wait_for_text(patience(), "Started working");
    assert!(ready.is_ok(), "xinetd is not ready\n{}{}", daemon.said(), tail.said());
    let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    event.includes(&json!({"diagnosis": {"holder": {"class": "app_daemon"}}}));
    assert_eq!(paste::endings(&event), [""; 0], "{event}");
    // On the machine whose configuration that is.
    let mut shell = Command::new("nsenter");
    shell.args(["-t", &daemon.pid().to_string(), "-m", "--", "sh", "-c"]);
    let shown = shell.arg(paste::command(&event, 0)).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in ["web-shop:1:service web-shop", "port = 8080", "disable = no"] {
        assert!(shown.contains(part), "{shown}\n{event}");
    }
    assert!(event.advice(0).contains("disable = yes"), "{event}");
    let disabled = service("web-shop", "8080").replace("disable = no", "disable = yes");
    fs::write(at.join("web-shop"), disabled).unwrap();
    daemon.signal(Signal::HUP);
    let reloaded = tail.stdout.wait_for_text(patience(), "Reconfigured");
    assert!(reloaded.is_ok(), "{}", tail.said());
    assert!(paste::is_alive(holder(&event)));
    scene.helper().succeeds([tcp(ADDRESS).listening()]);
    let _other = scene.netns.connect(ELSEWHERE.parse().unwrap()).unwrap();
}
