//! The class of the holder: classes that need more than a process. The others are in `holder`,
//! `kept`, `gone` and `containers`.

use std::process::Command;

use portwatch_tests::{
    cgroup::Slice,
    event::Event,
    golden,
    op::{Op, tcp},
    patience,
    process::Process,
    programs::{self, Alias},
    scene::Scene,
    skip::{needs, skip},
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

const ADDRESS: &str = "127.0.0.1:8080";

#[track_caller]
fn assert_class(event: &Event, class: &str, pid: u32, advice: &str) {
    event.is_explained().includes(&json!({
        "diagnosis": {"holder": {"class": class, "pid": pid}},
    }));
    assert!(event.advice(0).contains(advice), "no `{advice}`\n{event}");
    golden::keep(&format!("class-{class}"), event);
}

/// Kills the first server that `supervisor` has started, waits for the second, and lets
/// another program fail on its port.
fn killed_and_back(
    scene: &Scene,
    supervisor: &mut Command,
) -> (Process, u32, std::sync::Arc<Event>) {
    scene.netns.confine(supervisor);
    let supervisor = Process::start(supervisor, Signal::TERM).unwrap();
    let server = |number: usize| {
        let answer = supervisor.stdout.wait_until(patience(), |lines| {
            let mut answers = lines.iter().filter_map(|line| line.json());
            answers.nth(number)?.get("pid")?.as_u64()
        });
        let pid = answer.unwrap_or_else(|why| panic!("no server ({why:?})\n{}", supervisor.said()));
        u32::try_from(pid).unwrap()
    };
    let killed = rustix::process::Pid::from_raw(i32::try_from(server(0)).unwrap()).unwrap();
    rustix::process::kill_process(killed, Signal::KILL).unwrap();
    let back = server(1);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    (supervisor, back, event)
}

/// A forgotten script that restarts its server.
#[test]
fn a_shell_that_starts_it_again() {
    if needs("arguments_of_the_gone", (5, 11)) {
        return;
    }
    let scene = Scene::new();
    let mut shell = programs::shell_loop(&format!("tcp/{ADDRESS}/listen hold"));
    let (shell, back, event) = killed_and_back(&scene, &mut shell);
    assert_class(&event, "restarted", back, &format!("kill {} {back}", shell.pid()));
    event.includes(&json!({
        "sockets": [{"holders": [{"supervisor": {"kind": "shell", "pid": shell.pid()}}]}],
        "diagnosis": {"judgement": {"safe_to_stop": "check"}},
    }));
}

/// A supervisor program.
#[test]
fn runit_starts_it_again() {
    let Some(runsv) = programs::installed("runsv") else {
        return skip("runit_starts_it_again", "no runsv");
    };
    let (scene, folder) = (Scene::new(), TempDir::new().unwrap());
    let service = programs::runit_service(folder.path(), ADDRESS);
    let mut command = Command::new(runsv);
    command.arg(&service);
    let (_runsv, back, event) = killed_and_back(&scene, &mut command);
    let stop = format!("sv down {}", service.display());
    assert_class(&event, "restarted", back, &stop);
}

#[test]
fn kube_proxy() {
    let scene = Scene::new();
    let proxy = Alias::new("kube-proxy");
    let holder = scene.helper().run_as(&proxy).holds([tcp("127.0.0.1:30080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:30080"));
    let event = scene.event_of(&refused);
    assert_class(&event, "kube_proxy", holder.pid(), "kubectl get services -A | grep -w 30080");
}

/// A user's process may have any name: it is not what root would have started.
#[test]
fn a_name_is_no_proof() {
    for name in ["systemd", "docker-proxy", "kube-proxy", "conmon", "(sd-listen)"] {
        let scene = Scene::new();
        let named = Alias::new(name);
        let holder = scene.helper().run_as(&named).by(1004).holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().is_refused(tcp(ADDRESS));
        scene.event_of(&refused).is_explained().includes(&json!({
            "sockets": [{"holders": [{"comm": name, "vouched_by": "nobody"}]}],
            "diagnosis": {"holder": {"class": "other_service", "pid": holder.pid()}},
        }));
    }
}

/// Every user creates control groups of any name below their own manager.
#[test]
fn a_name_of_a_group_is_no_proof() {
    let id = "9f81c2e4a77b".repeat(6)[..64].to_owned();
    let pod = "kubepods.slice/kubepods-pod0d2a6a3c_6f5b_4a3e_8d6b_2f1d7a1c9e11.slice";
    for (name, container) in [
        (format!("app.slice/cri-containerd-{id}.scope"), None),
        (format!("{pod}/crio-{id}.scope"), None),
        ("lxc.payload.web".to_owned(), None),
        // Perhaps a container of the user's own engine, but none of the system's.
        (format!("app.slice/docker-{id}.scope"), Some(&id)),
    ] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let users = "user.slice/user-1004.slice/user@1004.service";
        let group = slice.group(&format!("{users}/{name}"));
        let holder = scene.helper().within(&group).by(1004).holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        event.is_explained().includes(&json!({
            "sockets": [{"holders": [{"pid": holder.pid(), "container": container, "pod": null}]}],
        }));
        for (number, _) in event.at("/diagnosis/moves").as_array().unwrap().iter().enumerate() {
            let advice = event.advice(number);
            for command in ["crictl", "lxc-stop", "kubectl", "docker stop"] {
                assert!(!advice.contains(command), "{name}: {advice}");
            }
        }
    }
}

/// The parent shell of a script restarts nothing.
#[test]
fn a_shell_that_runs_it_once() {
    if needs("arguments_of_the_gone", (5, 11)) {
        return;
    }
    let scene = Scene::new();
    let script = format!("{} tcp/{ADDRESS}/listen hold; true", programs::binder().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    scene.netns.confine(&mut shell);
    let shell = Process::start(&mut shell, Signal::TERM).unwrap();
    shell.stdout.wait_until(patience(), |lines| lines.first().map(|_| ())).unwrap();
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({"sockets": [{"holders": [{"ppid": shell.pid()}]}]}));
    let supervisor = event.at("/sockets/0/holders/0").get("supervisor");
    assert!(supervisor.is_none_or(|it| it["kind"] != "shell"), "{event}");
}

/// By its cgroup alone, if no engine answers: reported, and stopped by its id.
#[test]
fn a_container_without_its_engine() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let id = "9f81c2e4a77b".repeat(6)[..64].to_owned();
    let group = slice.group(&format!("docker-{id}.scope"));
    let holder = scene.helper().within(&group).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    assert_class(&event, "container", holder.pid(), "docker stop 9f81c2e4a77b");
    event.includes(&json!({"diagnosis": {"holder": {"container": id}}}));
    assert!(event.at("/gaps").to_string().contains("workload"), "no gap for its name\n{event}");
}

/// It has crashed, and keeps the port until its memory is on the disk.
#[test]
fn a_core_dump_in_progress() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with('|') {
        return skip("a_core_dump_in_progress", "a program takes the cores");
    }
    let (scene, folder) = (Scene::new(), TempDir::new().unwrap());
    // The kernel detects a fifo without a reader only for pipes, so the dump is made long by
    // its size.
    let mut holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let pid = holder.pid();
    holder.tells(Op::Dump(folder.path().to_owned()));
    wait_for_dump(pid);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    assert_class(&event, "core_dumping", pid, &format!("while kill -0 {pid}"));
}

/// The kernel reports it only in `CoreDumping` of /proc/PID/status.
pub fn wait_for_dump(pid: u32) {
    let deadline = std::time::Instant::now() + patience();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.contains("CoreDumping:\t1") {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no dump begins: {status}");
        std::thread::yield_now();
    }
}
