//! The commands of an event, run as they are printed: the port comes free, the failing program
//! then starts, and nobody else ends.

use std::{
    path::Path,
    process::{Command, Output},
};

use portwatch_tests::{
    cgroup::Slice,
    event::Event,
    golden,
    helper::Holder,
    op::{Op, Socket, tcp, udp},
    patience,
    process::Process,
    programs::{self, Alias},
    scene::Scene,
    skip::skip,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::json;
use tempfile::TempDir;

const ADDRESS: &str = "127.0.0.1:8080";

/// Runs a command as somebody would who pastes it, with portwatch on the path.
fn paste(command: &str) -> Output {
    let portwatch = programs::portwatch().unwrap();
    let folder = portwatch.parent().map(Path::display).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("PATH", format!("{folder}:{path}")).output().unwrap()
}

/// The command of one move.
fn command(event: &Event, number: usize) -> String {
    event.text(&format!("/diagnosis/moves/{number}/command")).to_owned()
}

/// The first move that has a command which ends something.
fn ending(event: &Event) -> usize {
    let moves = event.list("/diagnosis/moves");
    let ends = |step: &serde_json::Value| step["risk"] != "none" && step["command"].is_string();
    moves.iter().position(ends).unwrap_or_else(|| panic!("nothing ends it\n{event}"))
}

/// Waits for the end of a process.
fn has_ended(pid: u32) -> bool {
    let Some(pid) = Pid::from_raw(i32::try_from(pid).unwrap()) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let timeout = Timespec { tv_sec: patience().as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready == 1)
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
        && !stat.is_empty()
}

/// Pastes the first command that ends something, and shows what comes of it.
#[track_caller]
fn frees(scene: &Scene, event: &Event, ended: &[u32], socket: Socket, bystanders: &[&Holder]) {
    let number = ending(event);
    let text = command(event, number);
    let output = paste(&text);
    for &pid in ended {
        assert!(has_ended(pid), "{pid} goes on after `{text}`: {output:?}\n{event}");
    }
    for bystander in bystanders {
        assert!(is_alive(bystander.pid()), "`{text}` ended {}\n{event}", bystander.pid());
    }
    // The failing program starts now.
    scene.helper().succeeds([socket]);
}

#[test]
fn a_process_that_nobody_manages() {
    let scene = Scene::new();
    let other = scene.helper().holds([tcp("127.0.0.1:8081").listening()]);
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    frees(&scene, &event, &[holder.pid()], tcp(ADDRESS).listening(), &[&other]);
}

/// Ctrl-Z: SIGTERM alone does nothing.
#[test]
fn a_process_that_is_stopped() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let pid = Pid::from_raw(i32::try_from(holder.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    event.includes(&json!({"sockets": [{"holders": [{"state": "stopped"}]}]}));
    assert!(event.text("/diagnosis/summary").contains("stopped"), "{event}");
    frees(&scene, &event, &[holder.pid()], tcp(ADDRESS).listening(), &[]);
}

#[test]
fn a_process_that_ignores_the_signal() {
    let scene = Scene::new();
    let holder = scene.helper().noting([Op::Ignore(15)]).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    frees(&scene, &event, &[holder.pid()], tcp(ADDRESS).listening(), &[]);
}

/// In the unit of what only launched it, or a scope: the process ends, and what else is there
/// goes on.
#[test]
fn a_process_in_a_unit_that_is_not_its_service() {
    let user = "user.slice/user-1000.slice/user@1000.service/app.slice";
    let places = [
        "cron.service".to_owned(),
        "ssh.service".to_owned(),
        "actions.runner.acme.web-1.service".to_owned(),
        format!("{user}/vte-spawn-0f7c2f3e-53d9-4f0e-8a7d-4a5a1c0e1234.scope"),
        format!("{user}/app-gnome-code-31337.scope"),
        format!("{user}/snap.code.code-11111111-2222-3333-4444-555555555555.scope"),
        format!("{user}/tmux-spawn-0f7c2f3e-53d9-4f0e-8a7d-4a5a1c0e1234.scope"),
        "run-r0f7c2f3e53d94f0e8a7d.scope".to_owned(),
    ];
    for place in places {
        let (scene, slice) = (Scene::new(), Slice::new());
        let (group, unit) = (slice.group(&place), slice.group("app.service"));
        let beside = scene.helper().within(&group).holds([tcp("127.0.0.1:8081").listening()]);
        let holder = scene.helper().within(&group).holds([tcp(ADDRESS).listening()]);
        let event = scene.event_of(&scene.helper().within(&unit).is_refused(tcp(ADDRESS)));
        frees(&scene, &event, &[holder.pid()], tcp(ADDRESS).listening(), &[&beside]);
    }
}

/// The unit's manager would end the failing program too.
#[test]
fn a_process_in_the_unit_of_the_failing_one() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let unit = slice.group("app.service");
    let beside = scene.helper().within(&unit).holds([tcp("127.0.0.1:8081").listening()]);
    let holder = scene.helper().within(&unit).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&unit).is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    frees(&scene, &event, &[holder.pid()], tcp(ADDRESS).listening(), &[&beside]);
    assert!(is_alive(refused.pid));
}

/// A socket that was sent to somebody: whoever sent it is shown, by name.
#[test]
fn who_sent_a_socket_is_shown() {
    let scene = Scene::new();
    let bus = Alias::new("message-bus");
    let folder = TempDir::new().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let path = folder.path().join("socket");
    let receiver = scene.helper().run_as(&bus).holds([Op::Receive(path.clone())]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&path, mode).unwrap();
    let mut sender = scene.helper().by(1004).holds([tcp(ADDRESS).listening()]);
    sender.tells(Op::SendTo(path));
    // It answers when it has sent that.
    sender.does(tcp("127.0.0.1:8081"));
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "diagnosis": {"holder": {"class": "received", "pid": receiver.pid()}},
    }));
    golden::keep("class-received", &event);
    let shown = paste(&command(&event, 0));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&sender.pid().to_string()), "{shown}\n{event}");
}

/// A daemon that listens for its programs is only asked about them.
#[test]
fn a_daemon_of_several_programs() {
    let scene = Scene::new();
    let xinetd = Alias::new("xinetd");
    let holder = scene.helper().run_as(&xinetd).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "diagnosis": {
            "holder": {"class": "app_daemon", "pid": holder.pid()},
            "judgement": {"safe_to_stop": "no"},
        },
    }));
    for step in event.list("/diagnosis/moves") {
        assert_eq!(step["risk"], "none", "{event}");
        if let Some(command) = step["command"].as_str() {
            paste(command);
        }
    }
    assert!(is_alive(holder.pid()));
    golden::keep("class-app_daemon", &event);
}

#[test]
fn a_job_of_runit() {
    let Some(runsv) = programs::installed("runsv") else {
        return skip("a_job_of_runit", "no runsv");
    };
    let (scene, folder) = (Scene::new(), TempDir::new().unwrap());
    let service = programs::runit_service(folder.path(), ADDRESS);
    let mut supervisor = Command::new(runsv);
    supervisor.arg(&service);
    scene.netns.confine(&mut supervisor);
    let supervisor = Process::start(&mut supervisor, Signal::TERM).unwrap();
    let server = supervisor.stdout.wait_until(patience(), |lines| {
        lines.iter().find_map(|line| line.json()?.get("pid")?.as_u64())
    });
    let server = u32::try_from(server.unwrap()).unwrap();
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    frees(&scene, &event, &[server], tcp(ADDRESS).listening(), &[]);
}

/// The name of the device stands in what the command shows.
#[test]
fn a_tunnel_is_shown_by_its_device() {
    let scene = Scene::new();
    let mut link = Command::new("ip");
    link.args("link add vxlan-shop type vxlan id 42 dstport 4789 local 127.0.0.1".split(' '));
    scene.netns.confine(&mut link);
    if !link.output().is_ok_and(|output| output.status.success()) {
        return skip("a_tunnel_is_shown_by_its_device", "no vxlan");
    }
    let mut up = Command::new("ip");
    up.args("link set vxlan-shop up".split(' '));
    scene.netns.confine(&mut up);
    assert!(up.status().unwrap().success());
    let refused = scene.helper().is_refused(udp("0.0.0.0:4789"));
    let event = scene.event_of(&refused);
    event.includes(&json!({"diagnosis": {"holder": {"class": "kernel_socket"}}}));
    let shown = paste(&command(&event, 0));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("vxlan-shop"), "{shown}\n{event}");
}
