//! The commands of an event, run as they are printed: the port comes free, the failing program
//! then starts, and nobody else ends.

use std::process::Command;

use portwatch_tests::{
    cgroup::Slice,
    event::Event,
    golden,
    netns::Netns,
    op::{Leaving, Op, Socket, tcp, udp},
    paste::{self, Pasted, Way, command},
    patience,
    process::Process,
    programs::{self, Alias},
    scene::Scene,
    skip::{needs, skip},
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::json;
use tempfile::TempDir;

const ADDRESS: &str = "127.0.0.1:8080";

/// Pastes the first command that ends something, which ends these.
#[track_caller]
fn frees(way: Way, scene: &Scene, event: &Event, ended: &[u32]) {
    Pasted::of(scene, event).by(way).frees(ended, tcp(ADDRESS).listening());
}

/// Returns whether a printed command needs one of these and this machine has it not.
fn lacks(needed: &[&str]) -> bool {
    let missing = needed.iter().find(|name| programs::installed(name).is_none());
    if let Some(name) = missing {
        skip("commands", &format!("no {name}"));
    }
    missing.is_some()
}

/// The first command that begins so.
#[track_caller]
fn that_begins(event: &Event, begin: &str) -> String {
    let moves = event.list("/diagnosis/moves").iter();
    let found = moves.filter_map(|it| it["command"].as_str()).find(|it| it.contains(begin));
    found.unwrap_or_else(|| panic!("no `{begin}`\n{event}")).to_owned()
}

#[test]
fn a_process_that_nobody_manages() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let _other = scene.helper().holds([tcp("127.0.0.1:8081").listening()]);
        let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        frees(way, &scene, &event, &[holder.pid()]);
    }
}

/// Ctrl-Z: SIGTERM alone does nothing.
#[test]
fn a_process_that_is_stopped() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
        let pid = Pid::from_raw(i32::try_from(holder.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        // The signal takes effect when the process runs next.
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
        let refused = scene.helper().is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        event.includes(&json!({
            "sockets": [{"holders": [{"state": "stopped"}]}],
            "diagnosis": {"holder": {"class": "old_instance"}},
        }));
        let pid = holder.pid();
        assert_eq!(command(&event, 0), format!("kill {pid}; kill -CONT {pid}"), "{event}");
        assert!(event.text("/diagnosis/summary").contains("stopped"), "{event}");
        frees(way, &scene, &event, &[holder.pid()]);
    }
}

#[test]
fn a_process_that_ignores_the_signal() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let holder = scene.helper().noting([Op::Ignore(15)]).holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        frees(way, &scene, &event, &[holder.pid()]);
    }
}

#[test]
fn a_process_that_blocks_the_signal() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let holder = scene.helper().noting([Op::Block(15)]).holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        frees(way, &scene, &event, &[holder.pid()]);
    }
}

/// In the unit of its launcher, or in a scope: the process ends, and the rest goes on.
#[test]
fn a_process_in_a_unit_that_is_not_its_service() {
    for way in Way::BOTH {
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
            let _beside = scene.helper().within(&group).holds([tcp("127.0.0.1:8081").listening()]);
            let holder = scene.helper().within(&group).holds([tcp(ADDRESS).listening()]);
            let event = scene.event_of(&scene.helper().within(&unit).is_refused(tcp(ADDRESS)));
            frees(way, &scene, &event, &[holder.pid()]);
        }
    }
}

/// The unit's manager would end the failing program too. `portwatch free` does not know of that
/// program.
#[test]
fn a_process_in_the_unit_of_the_failing_one() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let unit = slice.group("app.service");
    let _beside = scene.helper().within(&unit).holds([tcp("127.0.0.1:8081").listening()]);
    let holder = scene.helper().within(&unit).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&unit).is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    frees(Way::Paste, &scene, &event, &[holder.pid()]);
    assert!(paste::is_alive(refused.pid));
}

/// A socket that was sent to somebody: whoever sent it is shown, by name.
#[test]
fn who_sent_a_socket_is_shown() {
    if lacks(&["ps"]) {
        return;
    }
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
    let shown = paste::show(&command(&event, 0));
    assert!(shown.contains(&sender.pid().to_string()), "{shown}\n{event}");
}

/// In the session of whoever started the failing program: it is shown before it is ended.
#[test]
fn somebody_works_there() {
    for way in Way::BOTH {
        if lacks(&["ps"]) {
            return;
        }
        let (scene, slice) = (Scene::new(), Slice::new());
        let session = slice.group("user.slice/user-1004.slice/session-91.scope");
        let editor = Alias::new("editor-preview");
        let holder =
            scene.helper().run_as(&editor).within(&session).holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().within(&session).is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        event.includes(&json!({"diagnosis": {"holder": {"class": "squatter"}}}));
        let shown = paste::show(&that_begins(&event, "ps "));
        assert!(shown.contains(&holder.pid().to_string()) && shown.contains("editor"), "{shown}");
        frees(way, &scene, &event, &[holder.pid()]);
    }
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
            let _ = paste::run(command);
        }
    }
    assert!(paste::is_alive(holder.pid()));
    golden::keep("class-app_daemon", &event);
}

#[test]
fn a_job_of_runit() {
    for way in Way::BOTH {
        let Some(runsv) = programs::installed("runsv") else {
            return skip("managers", "no runsv");
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
        frees(way, &scene, &event, &[server]);
    }
}

/// The name of the device stands in what the command shows.
#[test]
fn a_tunnel_is_shown_by_its_device() {
    if lacks(&["ip", "nsenter"]) {
        return;
    }
    let scene = Scene::new();
    let ip = |arguments: &str| {
        let mut ip = Command::new("ip");
        scene.netns.confine(ip.args(arguments.split(' ')));
        ip.output().is_ok_and(|output| output.status.success())
    };
    if !ip("link add vxlan-shop type vxlan id 42 dstport 4789 local 127.0.0.1") {
        return skip("a_tunnel_is_shown_by_its_device", "no vxlan");
    }
    assert!(ip("link set vxlan-shop up"));
    let refused = scene.helper().is_refused(udp("0.0.0.0:4789"));
    let event = scene.event_of(&refused);
    event.includes(&json!({"diagnosis": {"holder": {"class": "kernel_socket"}}}));
    let shown = paste::show(&command(&event, 0));
    assert!(shown.contains("vxlan-shop"), "{shown}\n{event}");
}

/// A script that starts its server again: the shell goes first.
#[test]
fn a_loop_of_a_shell() {
    for way in Way::BOTH {
        if needs("arguments_of_the_gone", (5, 11)) {
            return;
        }
        let scene = Scene::new();
        let mut shell = programs::shell_loop(&format!("tcp/{ADDRESS}/listen hold"));
        scene.netns.confine(&mut shell);
        let shell = Process::start(&mut shell, Signal::TERM).unwrap();
        let server = shell.stdout.wait_until(patience(), |lines| {
            lines.iter().find_map(|line| line.json()?.get("pid")?.as_u64())
        });
        let server = u32::try_from(server.unwrap()).unwrap();
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        frees(way, &scene, &event, &[server, shell.pid()]);
    }
}

/// Orphaned connections that the kernel keeps, in a namespace with a name and in one without.
#[test]
fn waiting_is_enough() {
    if lacks(&["ip"]) {
        return;
    }
    let name = format!("portwatch-wait-{}", std::process::id());
    for netns in [Netns::named(&name), Netns::new()] {
        let begin = if netns.is_named() { "portwatch wait" } else { "sleep" };
        let scene = Scene::within(netns);
        scene.netns.set("ipv4/tcp_fin_timeout", "2");
        let _clients = scene.helper().holds([tcp(ADDRESS).leaving(Leaving::FinWait2(1))]);
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        event.includes(&json!({"diagnosis": {"cause": "closing"}}));
        let wait = that_begins(&event, begin);
        let waited = paste::run(&wait);
        assert!(waited.status.success(), "{wait}: {waited:?}\n{event}");
        scene.helper().succeeds([tcp(ADDRESS).listening()]);
    }
}

/// The kernel's settings of a namespace are its own.
#[test]
fn a_setting_of_a_namespace() {
    if lacks(&["sysctl", "nsenter"]) {
        return;
    }
    let (scene, slice) = (Scene::new(), Slice::new());
    let host = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap();
    let before = host();
    scene.netns.set("ipv4/ip_local_port_range", "40000 40001");
    let _server = scene.helper().holds([tcp("127.0.0.1:80").listening()]);
    let unit = slice.group("billing.service");
    let client = Op::Connect("127.0.0.1:80".parse().unwrap());
    let client = scene.helper().within(&unit).holds([client]);
    let port = client.outcome(0).port;
    let event = scene.event_of(&scene.helper().is_refused(tcp(&format!("127.0.0.1:{port}"))));
    let set = paste::run(&that_begins(&event, "ip_local_reserved_ports"));
    assert!(set.status.success(), "{set:?}");
    // The kernel gives one port, and keeps the other.
    drop(client);
    let other = scene.helper().runs([Op::Connect("127.0.0.1:80".parse().unwrap())]);
    assert_ne!(other.last().port, port, "{event}");
    assert_eq!(host(), before, "the host's changed");
}

/// Any port is wanted, and there are more of them.
#[test]
fn a_range_is_widened() {
    if lacks(&["sysctl", "nsenter"]) {
        return;
    }
    let (scene, slice) = (Scene::new(), Slice::new());
    let host = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let before = host();
    scene.netns.set("ipv4/ip_local_port_range", "40000 40009");
    let unit = slice.group("billing.service");
    let any = tcp("127.0.0.1:0").listening();
    let _holder = scene.helper().within(&unit).holds([any.clone().repeated(10)]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:0"));
    let event = scene.event_of(&refused);
    let widened = paste::run(&that_begins(&event, "ip_local_port_range"));
    assert!(widened.status.success(), "{widened:?}\n{event}");
    scene.helper().succeeds([any]);
    assert_eq!(host(), before, "the host's changed");
}

/// Nothing has the port any more: what shows that looks into the namespace of the failed bind.
#[test]
fn a_port_is_looked_at_in_its_namespace() {
    if lacks(&["ss", "nsenter"]) {
        return;
    }
    let scene = Scene::new();
    let _lives_there = scene.helper().holds(Vec::<Op>::new());
    for (own, command) in [(tcp(ADDRESS).listening(), "ss -tanp"), (udp(ADDRESS), "ss -uanp")] {
        if !(0..20).any(|_| is_looked_at(&scene, &own, command)) {
            portwatch_tests::say(&format!("{command}: no holder was gone in time"));
        }
    }
}

fn is_looked_at(scene: &Scene, own: &Socket, command: &str) -> bool {
    let holder = scene.helper().holds([own.clone()]);
    let refused = scene.helper().is_refused(own.clone());
    drop(holder);
    let event = scene.event_of(&refused);
    let is_gone = event.text("/diagnosis/cause") == "gone";
    if is_gone {
        let now = scene.helper().holds([own.clone()]);
        let shown = paste::show(&that_begins(&event, command));
        assert!(shown.contains(&format!("pid={},", now.pid())), "{shown}\n{event}");
    }
    is_gone
}

/// It waits for the end of the core dump.
#[test]
fn the_end_of_a_core_dump() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with('|') {
        return skip("a_core_dump_in_progress", "a program takes the cores");
    }
    let (scene, folder) = (Scene::new(), TempDir::new().unwrap());
    let mut holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let pid = holder.pid();
    holder.tells(Op::Dump(folder.path().to_owned()));
    crate::classes::wait_for_dump(pid);
    let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    event.includes(&json!({"diagnosis": {"holder": {"class": "core_dumping"}}}));
    // Reaped, as by every parent.
    let waiting = std::thread::spawn(move || holder.wait());
    let waited = paste::run(&command(&event, 0));
    assert!(waited.status.success(), "{waited:?}");
    waiting.join().unwrap();
    scene.helper().succeeds([tcp(ADDRESS).listening()]);
}
