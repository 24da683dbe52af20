//! `portwatch exec`: the command is not disturbed, and each of its failed binds is explained.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use portwatch_tests::{
    event::{EVENT, Event, LOSS},
    netns::Netns,
    op::{Op, tcp},
    patience,
    process::{Process, code},
    programs::{binder, installed, portwatch},
    scene::Scene,
    skip::{needs, skip},
    stream::Line,
};
use rustix::process::Signal;
use serde_json::json;

mod killed;
mod signals;
mod terminal;
mod wait_free;

/// The errno that the helper ends with.
const EADDRINUSE: i32 = 98;
const ADDRESS: &str = "127.0.0.1:8080";

/// `portwatch exec` with these options, in `netns`.
fn exec(netns: &Netns, options: &[&str], command: &[&str]) -> Command {
    let mut exec = Command::new(portwatch().unwrap());
    exec.arg("exec").args(options).arg("--").args(command);
    netns.confine(&mut exec);
    exec
}

fn start(command: &mut Command) -> Process {
    Process::start(command, Signal::KILL).unwrap()
}

/// The helper that tries to take the port.
fn taker() -> [String; 2] {
    [binder().display().to_string(), tcp(ADDRESS).to_string()]
}

/// One run to its end.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
    events: Vec<Event>,
}

fn to_its_end(mut process: Process) -> Ran {
    let status = process.wait_or_panic(patience());
    let [stdout, stderr] = [&process.stdout, &process.stderr].map(|s| s.wait_for_end(patience()));
    let events = process.stderr.look(events);
    Ran { code: code(status), stdout, stderr, events }
}

/// The events on its stderr.
fn events(lines: &[Line]) -> Vec<Event> {
    let of = |line: &Line, schema| line.json().is_some_and(|value| value["schema"] == schema);
    assert!(!lines.iter().any(|line| of(line, LOSS)), "there are losses");
    let events = lines.iter().filter(|line| of(line, EVENT));
    events.map(|line| Event::new(line.json().unwrap().clone(), line.at_ns)).collect()
}

/// Waits for the first of its events.
fn event_of(process: &Process) -> Arc<Event> {
    let found = process.stderr.wait_until(patience(), |lines| events(lines).into_iter().next());
    Arc::new(found.unwrap_or_else(|why| panic!("no event ({why:?})\n{}", process.said())))
}

/// Waits until there is no such process. The end of another's child cannot be waited for.
fn wait_until_gone(pid: u32) {
    let deadline = Instant::now() + patience();
    while std::fs::exists(format!("/proc/{pid}")).unwrap() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// It fails, its failed bind is explained, and it keeps its own exit code.
#[test]
fn a_command_that_ends_at_once() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    for silent in [false, true] {
        let vanish = Op::Vanish.to_string();
        let mut command = vec![program.as_str()];
        command.extend(silent.then_some(vanish.as_str()));
        command.push(&take);
        let ran = to_its_end(start(&mut exec(&scene.netns, &["--format", "json"], &command)));
        assert_eq!(ran.code, EADDRINUSE, "{}", ran.stderr);
        assert_eq!(ran.stdout.is_empty(), silent, "what it says is not passed through");
        let [event] = &ran.events[..] else { panic!("not one event\n{}", ran.stderr) };
        event.is_explained().includes(&json!({
            "failure": {"address": "127.0.0.1", "port": 8080},
            "process": {"comm": "binder"},
            "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
        }));
        assert_eq!(event.faults(), "", "{event}");
    }
}

/// Without options: text on stderr, none of it on stdout.
#[test]
fn it_is_told_as_text() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    let ran = to_its_end(start(&mut exec(&scene.netns, &[], &[&program, &take])));
    let ready = ran.stderr.lines().next().unwrap_or_default();
    assert_eq!(ready, "portwatch: ready");
    for part in ["EADDRINUSE", "listener", ADDRESS, &format!("kill {}", holder.pid())] {
        assert!(ran.stderr.contains(part), "no {part} in\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains('\u{1b}'), "there is colour, and no terminal\n{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
}

/// Files, signals, limits, capabilities, process group, environment: everything is as without
/// `exec`.
#[test]
fn the_command_is_started_as_it_would_be() {
    const SCRIPT: &str = "ls /proc/self/fd; cat /proc/self/limits; pwd; env; umask; \
                          grep -E '^(Uid|Gid|Groups|Sig[BIC]|Cap|NoNew|Seccomp:)' /proc/self/status; \
                          read pid name state parent group session rest </proc/self/stat; \
                          echo $group $session; cat";
    let netns = Netns::new();
    let mut bare = Command::new("sh");
    netns.confine(bare.args(["-c", SCRIPT]));
    let said = |mut process: Process| {
        process.tell("the end of stdin");
        let line = process.stdout.wait_for_text(patience(), "the end of stdin");
        line.unwrap_or_else(|why| panic!("{why:?}\n{}", process.said()));
        process.stdout.text()
    };
    let expected = said(start(&mut bare));
    assert_eq!(said(start(&mut exec(&netns, &[], &["sh", "-c", SCRIPT]))), expected);
    assert!(expected.lines().count() > 20, "{expected}");
}

#[test]
fn the_exit_code_is_the_commands() {
    let netns = Netns::new();
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
    ] {
        let ran = to_its_end(start(&mut exec(&netns, &[], &["sh", "-c", script])));
        assert_eq!(ran.code, expected, "{script}\n{}", ran.stderr);
    }
}

#[test]
fn a_command_that_cannot_be_started() {
    let netns = Netns::new();
    for (command, expected) in [("/no/such/program", 127), ("no-such-program", 127), ("/proc", 126)]
    {
        let ran = to_its_end(start(&mut exec(&netns, &[], &[command])));
        assert_eq!(ran.code, expected, "{}", ran.stderr);
        let lines = |start| ran.stderr.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!((lines("error: "), lines("hint: ")), (1, 1), "{}", ran.stderr);
        assert!(ran.stderr.contains(command), "{}", ran.stderr);
    }
}

/// A neighbour that fails at the same time is not reported. The shared agent has seen it, so
/// it was visible.
#[test]
fn only_what_it_started_is_told_of() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let program = binder().display().to_string();
    let mut command = exec(&scene.netns, &["--format", "json"], &[&program, "hold"]);
    let mut process = start(&mut command);
    process.stderr.wait_for_text(patience(), "ready").unwrap();
    scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    // Its stdin is the command's.
    process.tell(&tcp(ADDRESS).to_string());
    let event = event_of(&process);
    scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    process.tell(&tcp("127.0.0.1:8081").to_string());
    let taken = process.stdout.wait_until(patience(), |lines| lines.get(1).map(|_| ()));
    taken.unwrap_or_else(|why| panic!("{why:?}\n{}", process.said()));
    process.signal(Signal::TERM);
    let ran = to_its_end(process);
    let pids: Vec<_> = ran.events.iter().map(|event| event.pid).collect();
    assert_eq!(pids, [event.pid], "{}", ran.stderr);
}

/// A flood of others' failed binds loses none of its own.
#[test]
fn a_flood_of_others() {
    let scene = Scene::alone();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    let script = format!("read x; {program} {take}");
    let mut command = exec(&scene.netns, &["--format", "json"], &["sh", "-c", &script]);
    let mut process = start(&mut command);
    process.stderr.wait_for_text(patience(), "ready").unwrap();
    let flood = scene.helper().runs([Op::Storm(ADDRESS.parse().unwrap(), 20_000)]);
    assert_eq!(flood.last().refused, 20_000);
    process.tell("");
    let ran = to_its_end(process);
    assert_eq!(ran.code, EADDRINUSE, "{}", ran.stderr);
    assert_eq!(ran.events.iter().map(|event| event.count).sum::<u64>(), 1, "{}", ran.stderr);
}

/// A process whose parents have exited still belongs to the command.
#[test]
fn a_grandchild_whose_parent_has_ended() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    let script = format!("{program} {} daemon {take}; read x; exit 3", tcp("127.0.0.1:0"));
    let mut command = exec(&scene.netns, &["--format", "json"], &["sh", "-c", &script]);
    let mut process = start(&mut command);
    let event = event_of(&process);
    event.is_explained().includes(&json!({
        "process": {"comm": "binder"},
        "diagnosis": {"cause": "listener"},
    }));
    if !needs("arguments_of_the_gone", (5, 11)) {
        event.includes(&json!({"process": {"ppid": process.pid()}}));
    }
    // It has to reap it.
    wait_until_gone(event.pid.unwrap());
    process.tell("");
    assert_eq!(to_its_end(process).code, 3);
}

/// Processes that a command leaves behind continue, and are not waited for.
#[test]
fn what_is_left_behind_goes_on() {
    let script = "sleep 600 </dev/null >/dev/null 2>&1 & echo $!";
    let ran = to_its_end(start(&mut exec(&Netns::new(), &[], &["sh", "-c", script])));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let pid: i32 = ran.stdout.trim().parse().unwrap();
    let left = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(left, Signal::KILL).expect("it is still there");
}

/// In a pid namespace of its own, processes have other pids than the kernel side reports.
#[test]
fn in_a_pid_namespace() {
    let Some(unshare) = installed("unshare") else {
        skip("exec_in_a_pid_namespace", "no unshare(1)");
        return;
    };
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let mut command = Command::new(unshare);
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(portwatch().unwrap()).args(["exec", "--format", "json", "--"]).args(taker());
    scene.netns.confine(&mut command);
    let ran = to_its_end(start(&mut command));
    assert_eq!(ran.code, EADDRINUSE, "{}", ran.stderr);
    let [event] = &ran.events[..] else { panic!("not one event\n{}", ran.stderr) };
    event.includes(&json!({"process": {"comm": "binder"}, "failure": {"port": 8080}}));
    let known = event.at("/diagnosis/holder/pid").is_u64();
    let why = event.list("/gaps").iter().any(|gap| gap["what"] == "sockets.holders");
    assert!(known || why, "an unidentified process without a reason\n{event}");
}

/// A filter answers EADDRINUSE in the kernel's place, so that no socket is to blame.
#[test]
fn a_bind_that_a_filter_answers() {
    let scene = Scene::new();
    let [program, take] = taker();
    let denied = Op::Denied(98).to_string();
    let command = [program.as_str(), &denied, &take];
    let ran = to_its_end(start(&mut exec(&scene.netns, &["--format", "json"], &command)));
    assert_eq!((ran.code, ran.events.len()), (EADDRINUSE, 0), "{}", ran.stderr);
    if scene.agent.hooks() != "tracepoint" {
        // The function hooks do not see a call that was never made.
        return;
    }
    let ran = to_its_end(start(&mut exec(&scene.netns, &[], &command)));
    assert!(!ran.stderr.contains("EADDRINUSE  "), "an event\n{}", ran.stderr);
    let said =
        "portwatch: 1 bind or listen of the command returned EADDRINUSE but reached no socket";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}
