//! `portwatch free`: takes a port back, ends nothing else, and proves it.

use std::process::Command;

use portwatch_tests::{
    cgroup::Slice,
    command::{Said, portwatch, run},
    helper::Helper,
    netns::Netns,
    op::{Leaving, Op, tcp},
    paste::is_alive,
    patience,
    process::Process,
    programs::{self, Alias},
    skip::skip,
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::{Value, json};
use tempfile::TempDir;

mod asked;
mod kinds;
mod services;

const ADDRESS: &str = "127.0.0.1:8080";
/// A bystander's.
const BESIDE: &str = "127.0.0.1:8081";

/// Runs `portwatch free` in a namespace.
fn free(netns: &Netns, options: &[&str]) -> Said {
    let mut command = portwatch(&[&["free", ADDRESS], options].concat());
    netns.confine(&mut command);
    run(&mut command)
}

/// The same as JSON, with its exit code.
#[track_caller]
fn took(netns: &Netns, options: &[&str]) -> (i32, Value) {
    let said = free(netns, &[options, &["--format", "json"]].concat());
    let action = serde_json::from_str(&said.stdout);
    (said.code, action.unwrap_or_else(|error| panic!("{error}\n{said}")))
}

#[track_caller]
fn is_freed(netns: &Netns, options: &[&str]) -> Value {
    let (code, action) = took(netns, options);
    assert_eq!((code, &action["result"]), (0, &json!("freed")), "{action:#}");
    assert_eq!(action["schema"], "portwatch/action/v1");
    assert_eq!(Helper::new(netns).runs([tcp(ADDRESS).listening()]).code, Some(0), "{action:#}");
    action
}

const ANYHOW: [&str; 2] = ["--yes", "--even-if-used"];

fn pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

#[test]
fn a_process_that_nobody_manages() {
    let netns = Netns::new();
    let beside = Helper::new(&netns).holds([tcp(BESIDE).listening()]);
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let action = is_freed(&netns, &ANYHOW);
    assert_eq!(action["steps"][0]["by"], "signal", "{action:#}");
    assert_eq!(
        action["steps"][0]["signalled"],
        json!([{"pid": holder.pid(), "comm": "binder", "signal": "SIGTERM", "exited": true}]),
    );
    assert!(action["before"]["summary"].as_str().unwrap().contains("binder"), "{action:#}");
    assert!(!is_alive(holder.pid()) && is_alive(beside.pid()));
}

/// Ctrl-Z: it reacts to SIGTERM when it continues.
#[test]
fn a_process_that_is_stopped() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    kill_process(pid(holder.pid()), Signal::STOP).unwrap();
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid(holder.pid())), options).unwrap();
    is_freed(&netns, &ANYHOW);
    assert!(!is_alive(holder.pid()));
}

#[test]
fn a_process_that_ignores_the_signal() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).noting([Op::Ignore(15)]).holds([tcp(ADDRESS).listening()]);
    let pid = holder.pid();
    let (_, plan) = took(&netns, &["--dry-run"]);
    let why = plan["why"].as_str().unwrap();
    assert!(why.starts_with(&format!("the plan is kill {pid}; ")), "{why}");
    assert!(why.contains("ignores SIGTERM: only --kill-after"), "{why}");
    let (code, action) = took(&netns, &ANYHOW);
    assert_eq!((code, &action["result"]), (1, &json!("failed")), "{action:#}");
    assert!(action["why"].as_str().unwrap().contains("ignores SIGTERM"), "{action:#}");
    assert_eq!(action["steps"][0]["command"], format!("kill {pid}"), "{action:#}");
    assert!(is_alive(pid));
    let action = is_freed(&netns, &[&ANYHOW[..], &["--kill-after", "100ms"]].concat());
    let did = format!("kill {pid}; sleep 0.1; kill -KILL {pid} 2>/dev/null || :");
    assert_eq!(action["steps"][0]["command"], did, "{action:#}");
    assert_eq!(action["steps"][0]["signalled"][0]["signal"], "SIGKILL", "{action:#}");
    assert!(!is_alive(holder.pid()));
}

/// It may unblock the signal later, so that is waited for.
#[test]
fn a_process_that_blocks_the_signal() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).noting([Op::Block(15)]).holds([tcp(ADDRESS).listening()]);
    let (code, action) = took(&netns, &[&ANYHOW[..], &["--timeout", "500ms"]].concat());
    assert_eq!((code, &action["result"]), (3, &json!("timed_out")), "{action:#}");
    assert_eq!(action["steps"][0]["signalled"][0]["exited"], false, "{action:#}");
    assert_eq!(action["steps"][0]["command"], format!("kill {}", holder.pid()), "{action:#}");
    assert!(is_alive(holder.pid()));
    is_freed(&netns, &[&ANYHOW[..], &["--kill-after", "100ms"]].concat());
}

/// What others may use is left alone unless that is asked for.
#[test]
fn another_service_is_not_stopped() {
    let (netns, slice) = (Netns::new(), Slice::new());
    let unit = slice.group("shop.service");
    let holder = Helper::new(&netns).within(&unit).holds([tcp(ADDRESS).listening()]);
    for options in [&["--yes"][..], &["--yes", "--kill-after", "1s"]] {
        let (code, action) = took(&netns, options);
        assert_eq!((code, &action["result"]), (3, &json!("refused")), "{action:#}");
        let why = action["why"].as_str().unwrap();
        assert!(why.contains("shop.service") && why.contains("--even-if-used"), "{why}");
        assert_eq!(action["steps"], json!([]));
    }
    assert!(is_alive(holder.pid()));
}

#[test]
fn the_plan_alone_changes_nothing() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let said = free(&netns, &["--dry-run"]);
    assert_eq!(said.code, 0, "{said}");
    let plan = format!("  plan        kill {}", holder.pid());
    assert!(said.stdout.lines().any(|line| line == plan), "{said}");
    assert!(said.stdout.contains(&format!("  ends        binder[{}]", holder.pid())), "{said}");
    assert!(said.stdout.contains("was not touched"), "{said}");
    assert!(is_alive(holder.pid()));
    let (code, action) = took(&netns, &["--dry-run"]);
    assert_eq!((code, &action["result"]), (0, &json!("planned")), "{action:#}");
}

/// The whole incident as a note: before, what was done, and after.
#[test]
fn a_note() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let said = free(&netns, &[&ANYHOW[..], &["--format", "markdown"]].concat());
    assert_eq!(said.code, 0, "{said}");
    let pid = holder.pid();
    for part in [
        "### What is on the port\n".to_owned(),
        format!("### What was done\n\n- sent SIGTERM to binder\\[{pid}\\] (a signal, "),
        format!("$ kill {pid}\n"),
        "### What came of it\n\n- freed\n".to_owned(),
    ] {
        assert!(said.stdout.contains(&part), "{part}\n{said}");
    }
}

/// A script must say so.
#[test]
fn nobody_is_asked_without_a_terminal() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let said = free(&netns, &[]);
    assert_eq!(said.code, 2, "{said}");
    assert!(said.stderr.contains("hint: use --yes in a script"), "{said}");
    assert!(is_alive(holder.pid()));
}

#[test]
fn a_free_port() {
    let netns = Netns::new();
    let (code, action) = took(&netns, &["--yes"]);
    assert_eq!((code, &action["result"]), (0, &json!("already_free")), "{action:#}");
    let said = free(&netns, &[]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains("tcp 127.0.0.1:8080 is free"), "{said}");
}

/// TIME-WAIT has no process: nothing is stopped, and it is waited for.
#[test]
fn time_wait_alone() {
    let netns = Netns::new();
    let left = Helper::new(&netns);
    assert_eq!(left.runs([tcp(ADDRESS).leaving(Leaving::TimeWait(3))]).code, Some(0));
    let (code, action) = took(&netns, &["--yes", "--timeout", "500ms"]);
    assert_eq!((code, &action["result"]), (3, &json!("timed_out")), "{action:#}");
    assert_eq!(action["steps"], json!([]));
    assert_eq!(action["time_wait"]["count"], 3, "{action:#}");
}

/// The shell would start it again at once.
#[test]
fn a_loop_of_a_shell() {
    let netns = Netns::new();
    let mut shell = programs::shell_loop(&format!("tcp/{ADDRESS}/listen hold"));
    netns.confine(&mut shell);
    let shell = Process::start(&mut shell, Signal::TERM).unwrap();
    let server = shell.stdout.wait_until(patience(), |lines| {
        lines.iter().find_map(|line| line.json()?.get("pid")?.as_u64())
    });
    let server = u32::try_from(server.unwrap()).unwrap();
    is_freed(&netns, &ANYHOW);
    assert!(!is_alive(server) && !is_alive(shell.pid()));
}

#[test]
fn a_job_of_runit() {
    let Some(runsv) = programs::installed("runsv") else {
        return skip("managers", "no runsv");
    };
    let (netns, folder) = (Netns::new(), TempDir::new().unwrap());
    let service = programs::runit_service(folder.path(), ADDRESS);
    let mut supervisor = Command::new(runsv);
    supervisor.arg(&service);
    netns.confine(&mut supervisor);
    let supervisor = Process::start(&mut supervisor, Signal::TERM).unwrap();
    supervisor.stdout.wait_for_text(patience(), "pid").unwrap();
    let action = is_freed(&netns, &ANYHOW);
    assert_eq!(action["steps"][0]["by"], "command", "{action:#}");
    assert!(is_alive(supervisor.pid()));
}

/// A daemon that listens for its programs is nobody's to end.
#[test]
fn a_daemon_of_several_programs() {
    let netns = Netns::new();
    let xinetd = Alias::new("xinetd");
    let holder = Helper::new(&netns).run_as(&xinetd).holds([tcp(ADDRESS).listening()]);
    let (code, action) = took(&netns, &ANYHOW);
    assert_eq!((code, &action["result"]), (3, &json!("refused")), "{action:#}");
    assert!(is_alive(holder.pid()));
}

/// Somebody takes the port as soon as it comes free: that is said, and who it is.
#[test]
fn somebody_else_takes_the_port() {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp(ADDRESS).listening()]);
    let mut taker = Command::new("sh");
    let script = "echo up; until \"$0\" vanish \"$1\" hold; do :; done";
    taker.args(["-c", script]).arg(programs::binder()).arg(tcp(ADDRESS).listening().to_string());
    netns.confine(&mut taker);
    let taker = Process::start(&mut taker, Signal::TERM).unwrap();
    taker.stdout.wait_for_text(patience(), "up").unwrap();
    let (code, action) = took(&netns, &ANYHOW);
    assert_eq!((code, &action["result"]), (3, &json!("taken")), "{action:#}");
    let why = action["why"].as_str().unwrap();
    assert!(why.contains("has taken it meanwhile"), "{why}");
    assert!(why.contains(&format!("sh[{}]", taker.pid())), "{why}");
    assert!(!is_alive(holder.pid()) && is_alive(taker.pid()));
}

/// Two processes have the two families: both are stopped, one after the other.
#[test]
fn two_holders_of_one_port() {
    let netns = Netns::new();
    let four = Helper::new(&netns).holds([tcp("127.0.0.1:8080").listening()]);
    let other = Helper::new(&netns).holds([tcp("127.0.0.2:8080").listening()]);
    let mut command = portwatch(&["free", "8080", "--yes", "--even-if-used", "--format", "json"]);
    netns.confine(&mut command);
    let said = run(&mut command);
    assert_eq!(said.code, 0, "{said}");
    let action: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(action["steps"].as_array().map(Vec::len), Some(2), "{action:#}");
    assert!(!is_alive(four.pid()) && !is_alive(other.pid()));
}

/// What started the command is not ended by it.
#[test]
fn its_own_ancestor() {
    let netns = Netns::new();
    if programs::installed("python3").is_none() {
        return skip("commands", "no python3");
    }
    let mut outer = Command::new("python3");
    outer.args(["-c", PARENT]).arg(programs::portwatch().unwrap());
    netns.confine(&mut outer);
    let said = run(&mut outer);
    assert_eq!(said.code, 3, "{said}");
    let action: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(action["result"], "refused", "{action:#}");
    assert!(action["why"].as_str().unwrap().contains("started this command"), "{action:#}");
}

const PARENT: &str = "
import socket, subprocess, sys
s = socket.socket()
s.bind(('127.0.0.1', 8080))
s.listen()
free = [sys.argv[1], 'free', '127.0.0.1:8080', '--yes', '--even-if-used', '--format', 'json']
sys.exit(subprocess.run(free).returncode)
";
