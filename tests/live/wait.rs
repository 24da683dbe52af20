//! `portwatch wait`: sockets open and close, and it must detect that.

use std::{
    fs::File,
    io::Read as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::bound_only::kernel_shows_them;
use portwatch_tests::{
    command::{Said, as_nobody, portwatch, run},
    helper::Helper,
    kernel,
    netns::Netns,
    op::{Leaving, Op, tcp, udp},
    patience,
    process::{Process, code},
    scene::Scene,
    stream::Silence,
};
use rustix::{
    net::sockopt::set_socket_reuseaddr,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Action, Winsize, tcflow, tcsetwinsize},
};
use serde_json::{Value, json};

const ADDRESS: &str = "127.0.0.1:8080";

/// `portwatch wait` in `netns`.
fn wait(netns: &Netns, arguments: &[&str]) -> Command {
    let mut command = portwatch(&[&["wait"], arguments].concat());
    netns.confine(&mut command);
    command
}

/// One check, as JSON by port, and the exit code.
fn look(netns: &Netns, arguments: &[&str]) -> (i32, Vec<Value>) {
    let once = ["--timeout", "0", "--format", "json"];
    let said = run(&mut wait(netns, &[arguments, &once].concat()));
    let lines = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (said.code, lines)
}

/// Returns one that has started to wait because of `what`.
fn waiting(command: &mut Command, what: &str) -> Process {
    let process = Process::start(command, Signal::KILL).unwrap();
    let told = process.stderr.wait_for_text(patience(), what);
    assert!(!matches!(told, Err(Silence::Ended | Silence::TimedOut)), "{}", process.said());
    process
}

/// Waits for its end, and returns its output.
fn ended(mut process: Process) -> Said {
    let status = process.wait_or_panic(patience());
    Said {
        arguments: vec!["wait".to_owned()],
        code: code(status),
        stdout: process.stdout.wait_for_end(patience()),
        stderr: process.stderr.wait_for_end(patience()),
    }
}

#[track_caller]
fn assert_json(actual: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&actual[key], value, "{key} in {actual}");
    }
}

#[test]
fn a_free_port_is_told_at_once() {
    let netns = Netns::new();
    let unseen = "before Linux 6.8 the kernel does not list sockets that are bound but not \
                  listening; one may block the bind";
    let notes = if kernel_shows_them() { vec![] } else { vec![unseen] };
    let (code, lines) = look(&netns, &["8080", "--free"]);
    assert_eq!(code, 0);
    assert_json(
        &lines[0],
        &json!({
            "port": 8080,
            "address": null,
            "protocol": "tcp",
            "free": true,
            "in_the_way": null,
            "time_wait": {"count": 0, "max_remaining_ms": null},
            "notes": notes,
        }),
    );
    let said = run(&mut wait(&netns, &["8080", "--free"]));
    let lines: Vec<_> = said.stdout.lines().collect();
    assert_eq!((said.code, lines[0]), (0, "tcp *:8080 is free"), "{said}");
    assert_eq!(lines.len(), 1 + notes.len(), "{said}");
    assert_eq!(said.stderr, "", "{said}");
}

#[test]
fn a_listener_closes() {
    for target in ["8080", ADDRESS] {
        let netns = Netns::new();
        let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
        let process = waiting(&mut wait(&netns, &[target, "--free"]), "LISTEN 127.0.0.1:8080");
        drop(holder);
        let said = ended(process);
        assert_eq!(said.code, 0, "{said}");
        assert!(said.stdout.contains(" is free"), "{said}");
        assert!(said.stderr.lines().count() == 2, "{said}");
        Helper::new(&netns).succeeds([tcp(ADDRESS).listening()]);
    }
}

#[test]
fn a_listener_stays() {
    let netns = Netns::new();
    let _holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    for reuse in [&[][..], &["--reuseaddr"]] {
        let (code, lines) = look(&netns, &[&["8080", "--free"], reuse].concat());
        assert_eq!(code, 3);
        assert_json(&lines[0], &json!({"free": false}));
        let why = lines[0]["in_the_way"].as_str().unwrap();
        assert!(why.starts_with("LISTEN 127.0.0.1:8080 (inode "), "{why}");
    }
    let said = run(&mut wait(&netns, &["8080", "--free", "--timeout", "0.2s"]));
    assert_eq!(said.code, 3, "{said}");
    assert!(said.stdout.contains("is held after 0.2 s: LISTEN 127.0.0.1:8080"), "{said}");
    assert!(said.stderr.contains("timed out after 0.2 s"), "{said}");
}

#[test]
fn time_wait_is_counted_and_passed() {
    let scene = Scene::new();
    let netns = &scene.netns;
    scene.helper().succeeds([tcp(ADDRESS).reuseaddr().leaving_time_wait(3)]);
    let (code, lines) = look(netns, &["8080", "--free"]);
    assert_eq!(code, 3, "{lines:?}");
    assert_eq!(lines[0]["time_wait"]["count"], 3, "{lines:?}");
    // A minute, and the kernel's timer may be 2 s late.
    let remaining = lines[0]["time_wait"]["max_remaining_ms"].as_u64().unwrap();
    assert!((1..=62_000).contains(&remaining), "{lines:?}");

    let (code, lines) = look(netns, &["8080", "--free", "--reuseaddr"]);
    assert_eq!((code, &lines[0]["free"]), (0, &json!(true)), "{lines:?}");
    assert_eq!(assumes(&lines[0]), !sees_connections(), "{lines:?}");
    scene.helper().succeeds([tcp(ADDRESS).reuseaddr().listening()]);
}

/// What the agent saw is not assumed otherwise.
#[test]
fn time_wait_of_a_program_that_lacked_it() {
    let scene = Scene::new();
    scene.helper().succeeds([tcp(ADDRESS).leaving_time_wait(3)]);
    let (code, lines) = look(&scene.netns, &["8080", "--free", "--reuseaddr"]);
    assert_eq!(code == 3, sees_connections(), "{lines:?}");
    assert_eq!(assumes(&lines[0]), !sees_connections(), "{lines:?}");
    scene.helper().is_refused(tcp(ADDRESS).reuseaddr());
}

/// Its process has changed the option since it was accepted.
#[test]
fn a_connection_that_is_open_says_itself_what_it_has() {
    let scene = Scene::new();
    let address = ADDRESS.parse().unwrap();
    let listener = scene.netns.listen(address);
    let _client = scene.netns.connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    drop(listener);
    for reuseaddr in [false, true] {
        set_socket_reuseaddr(&accepted, reuseaddr).unwrap();
        let (code, lines) = look(&scene.netns, &["8080", "--free", "--reuseaddr"]);
        assert_eq!(code == 0, reuseaddr, "{lines:?}");
        assert!(!assumes(&lines[0]), "{lines:?}");
        match reuseaddr {
            true => drop(scene.helper().succeeds([tcp(ADDRESS).reuseaddr().listening()])),
            false => drop(scene.helper().is_refused(tcp(ADDRESS).reuseaddr())),
        }
    }
}

/// Whether the hooks can create the cookie of a connection.
fn sees_connections() -> bool {
    kernel::is_at_least(5, 12)
}

/// Whether a note says that the answer depends on what nobody saw.
fn assumes(line: &Value) -> bool {
    let notes = line["notes"].as_array().unwrap();
    notes.iter().any(|note| note.as_str().unwrap().contains("SO_REUSEADDR"))
}

/// A timeout that cannot help is announced at once.
#[test]
fn time_wait_that_outlasts_the_timeout() {
    let netns = Netns::new();
    Helper::new(&netns).succeeds([tcp(ADDRESS).leaving_time_wait(1)]);
    let said = run(&mut wait(&netns, &["8080", "--free", "--timeout", "300ms"]));
    assert_eq!(said.code, 3, "{said}");
    assert!(said.stderr.contains("TIME-WAIT on tcp *:8080 lasts "), "{said}");
    assert!(said.stdout.contains("is held after 0.3 s: 1 in TIME-WAIT, the last ends"), "{said}");
}

/// No event reports the end of what only a timer of the kernel ends. This kind has a timer
/// that can be set.
#[test]
fn what_a_timer_ends() {
    let netns = Netns::new();
    netns.set("ipv4/tcp_fin_timeout", "1");
    let _holder = Helper::new(&netns).holds([tcp(ADDRESS).leaving(Leaving::FinWait2(1))]);
    let said = run(&mut wait(&netns, &[ADDRESS, "--free"]));
    assert_eq!(said.code, 0, "{said}");
    Helper::new(&netns).succeeds([tcp(ADDRESS).listening()]);
}

#[test]
fn bound_and_then_listening() {
    let netns = Netns::new();
    let mut holder = Helper::new(&netns).holds([tcp(ADDRESS)]);
    let (code, lines) = look(&netns, &["8080", "--listening"]);
    assert_eq!((code, &lines[0]["listening"]), (3, &json!(false)), "{lines:?}");
    let (code, lines) = look(&netns, &["8080", "--free"]);
    if kernel_shows_them() {
        assert_eq!(code, 3, "{lines:?}");
        assert!(lines[0]["in_the_way"].as_str().unwrap().starts_with("BOUND "), "{lines:?}");
    } else {
        assert!(lines[0]["notes"][0].as_str().unwrap().contains("6.8"), "{lines:?}");
    }
    let process = waiting(&mut wait(&netns, &["8080", "--listening"]), "no socket is listening");
    holder.does(Op::Listen(0));
    let said = ended(process);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains(": LISTEN 127.0.0.1:8080 (inode "), "{said}");
}

#[test]
fn several_ports_must_be_free_at_once() {
    let netns = Netns::new();
    let first = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let second = Helper::new(&netns).holds([tcp("127.0.0.1:8081").listening()]);
    let process = waiting(&mut wait(&netns, &["8080", "8081", "8082", "--free"]), "*:8081: LISTEN");
    drop(first);
    let (code, lines) = look(&netns, &["8080", "8081", "8082", "--free"]);
    let free: Vec<_> = lines.iter().map(|line| line["free"].as_bool().unwrap()).collect();
    assert_eq!((code, free), (3, vec![true, false, true]));
    drop(second);
    let said = ended(process);
    let told = said.stdout.lines().filter(|line| !line.starts_with("  note: "));
    assert_eq!((said.code, told.count()), (0, 3), "{said}");
}

#[test]
fn both_families() {
    let netns = Netns::new();
    let code = |arguments: &[&str]| look(&netns, arguments).0;
    let wide = Helper::new(&netns).holds([tcp("[::]:8080").listening()]);
    for target in ["8080", ADDRESS, "[::1]:8080", "0.0.0.0:8080"] {
        assert_eq!(code(&[target, "--free"]), 3, "{target}");
        assert_eq!(code(&[target, "--listening"]), 0, "{target}");
    }
    drop(wide);
    let _narrow = Helper::new(&netns).holds([tcp("[::]:8080").v6only().listening()]);
    for (target, free) in [(ADDRESS, 0), ("0.0.0.0:8080", 0), ("[::1]:8080", 3), ("8080", 3)] {
        assert_eq!(code(&[target, "--free"]), free, "{target}");
    }
    assert_eq!(code(&[ADDRESS, "--listening"]), 3);
    assert_eq!(code(&["[::1]:8080", "--listening"]), 0);
    Helper::new(&netns).succeeds([tcp("0.0.0.0:8080").listening()]);
}

#[test]
fn udp_sockets() {
    for address in [ADDRESS, "[::1]:8080"] {
        let netns = Netns::new();
        let holder = Helper::new(&netns).holds([udp(address)]);
        assert_eq!(look(&netns, &["8080", "--free"]).0, 0, "TCP has ports of its own");
        assert_eq!(look(&netns, &["8080", "--udp", "--listening"]).0, 0);
        assert_eq!(look(&netns, &["8080", "--udp", "--free", "--reuseaddr"]).0, 3);
        let process = waiting(&mut wait(&netns, &["8080", "--udp", "--free"]), "UNCONN");
        drop(holder);
        let said = ended(process);
        assert_eq!(said.code, 0, "{said}");
        let process = waiting(&mut wait(&netns, &[address, "--udp", "--listening"]), "no socket");
        let _again = Helper::new(&netns).holds([udp(address)]);
        let said = ended(process);
        assert_eq!(said.code, 0, "{said}");
        assert!(said.stdout.contains(" is bound"), "{said}");
    }
}

#[test]
fn an_ordinary_user_waits_as_well() {
    let netns = Netns::new();
    let as_nobody = |condition| as_nobody(Some(&netns), &["wait", "8080", condition]);
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let process = waiting(as_nobody("--free").command(), "LISTEN 127.0.0.1:8080");
    drop(holder);
    let said = ended(process);
    assert_eq!(said.code, 0, "{said}");
    let process = waiting(as_nobody("--listening").command(), "no socket is listening");
    let _holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let said = ended(process);
    assert_eq!(said.code, 0, "{said}");
}

#[test]
fn interrupted() {
    let netns = Netns::new();
    let _holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let process = waiting(&mut wait(&netns, &["8080", "--free"]), "waiting up to");
    process.signal(Signal::INT);
    let said = ended(process);
    assert_eq!((said.code, said.stdout.as_str()), (130, ""), "{said}");
}

const COLUMNS: u16 = 40;

/// Returns the end of the screen, and the one that is written to.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    (File::from(master), terminal)
}

/// Ctrl-S, or a dead connection: the line is not shown, and nothing else changes.
#[test]
fn a_terminal_that_takes_nothing_holds_nothing_up() {
    let netns = Netns::new();
    let _holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    for ends_by in [None, Some(Signal::INT)] {
        let (_master, terminal) = terminal();
        tcflow(&terminal, Action::OOff).unwrap();
        let timeout = if ends_by.is_some() { "10m" } else { "1s" };
        let mut command = wait(&netns, &["8080", "--free", "--timeout", timeout]);
        command.env("TERM", "xterm").stdout(Stdio::null()).stderr(terminal);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + patience();
        let mut signalled = false;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it waits for the terminal");
            thread::sleep(Duration::from_millis(100));
            // It watches for it by then.
            let late = Instant::now() + patience() > deadline + Duration::from_secs(1);
            if let Some(signal) = ends_by.filter(|_| late && !signalled) {
                kill_process(Pid::from_child(&child), signal).unwrap();
                signalled = true;
            }
        };
        assert_eq!(status.code(), Some(if ends_by.is_some() { 130 } else { 3 }));
    }
}

/// The line fits into the terminal, and is cleared at the end.
#[test]
fn on_a_terminal() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let (mut master, terminal) = terminal();
    let mut command = wait(&netns, &["8080", "--free"]);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(terminal);
    let mut child = command.spawn().unwrap();
    drop(command);

    let (mut drawn, mut holder) = (Vec::new(), Some(holder));
    let mut bytes = [0; 4096];
    // Reading from a terminal that nobody has open any more returns EIO.
    while let Ok(length @ 1..) = master.read(&mut bytes) {
        drawn.extend_from_slice(&bytes[..length]);
        if String::from_utf8_lossy(&drawn).contains("waiting") {
            holder.take();
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let drawn = String::from_utf8(drawn).unwrap();
    assert!(drawn.contains("waiting, "), "{drawn:?}");
    for line in drawn.split(['\r', '\n', '\u{1b}']) {
        assert!(line.chars().count() <= usize::from(COLUMNS) + "[2K".len(), "{line:?}");
    }
    assert!(drawn.ends_with("\r\u{1b}[2K"), "{drawn:?}");
}
