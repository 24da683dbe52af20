//! What else can hold a port: each is freed, waited for or refused, and nobody else ends.

use std::process::Command;

use portwatch_tests::{
    command::{portwatch, run},
    helper::Helper,
    netns::Netns,
    op::{Op, tcp},
    paste::is_alive,
    patience,
    process::Process,
    programs::{self, Alias},
    scene::Scene,
    skip::skip,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ADDRESS, ANYHOW, BESIDE, is_freed, took};

/// The result for another port than the usual one.
#[track_caller]
fn took_at(netns: &Netns, target: &str, options: &[&str]) -> (i32, Value) {
    let mut command = portwatch(&[&["free", target, "--format", "json"], options].concat());
    netns.confine(&mut command);
    let said = run(&mut command);
    let action = serde_json::from_str(&said.stdout);
    (said.code, action.unwrap_or_else(|error| panic!("{error}\n{said}")))
}

/// Another program has the socket, because its parent did not close it.
#[test]
fn an_inherited_socket() {
    let netns = Netns::new();
    let beside = Helper::new(&netns).holds([tcp(BESIDE).listening()]);
    let stranger = Alias::new("log-shipper");
    let parent = tcp(ADDRESS).listening().inheritable();
    let holder = Helper::new(&netns).holds([Op::from(parent), Op::Become(stranger.path.clone())]);
    is_freed(&netns, &ANYHOW);
    assert!(!is_alive(holder.pid()) && is_alive(beside.pid()));
}

/// The kernel gave a client the port.
#[test]
fn a_client() {
    let netns = Netns::new();
    let mut server = Command::new(programs::binder().with_file_name("server"));
    server.arg("127.0.0.1:80");
    netns.confine(&mut server);
    let server = Process::start(&mut server, Signal::TERM).unwrap();
    server.stdout.wait_for_text(patience(), "listening").unwrap();
    let client = Helper::new(&netns).holds([Op::Connect("127.0.0.1:80".parse().unwrap())]);
    let target = format!("127.0.0.1:{}", client.outcome(0).port);
    let (code, action) = took_at(&netns, &target, &["--yes"]);
    assert_eq!((code, &action["result"]), (3, &json!("refused")), "{action:#}");
    assert!(is_alive(client.pid()));
    let (code, action) = took_at(&netns, &target, &ANYHOW);
    assert_eq!((code, &action["result"]), (0, &json!("freed")), "{action:#}");
    assert!(!is_alive(client.pid()) && is_alive(server.pid()));
}

/// A tunnel of the kernel: there is no process.
#[test]
fn a_socket_of_the_kernel() {
    if programs::installed("ip").is_none() {
        return skip("commands", "no ip");
    }
    let netns = Netns::new();
    for link in [
        "link add vxlan-shop type vxlan id 42 dstport 4789 local 127.0.0.1",
        "link set vxlan-shop up",
    ] {
        let mut command = Command::new("ip");
        command.args(link.split(' '));
        netns.confine(&mut command);
        if !command.output().is_ok_and(|output| output.status.success()) {
            return skip("a_tunnel_is_shown_by_its_device", "no vxlan");
        }
    }
    let beside = Helper::new(&netns).holds([tcp(BESIDE).listening()]);
    let (code, action) = took_at(&netns, "4789", &[&ANYHOW[..], &["--udp"]].concat());
    assert_eq!((code, &action["result"]), (3, &json!("refused")), "{action:#}");
    assert_eq!(action["steps"], json!([]));
    assert!(is_alive(beside.pid()));
}

/// The server ends, its connections remain until the client closes them.
#[test]
fn connections_that_remain() {
    let netns = Netns::new();
    let mut server = Command::new(programs::binder().with_file_name("server"));
    server.arg(ADDRESS);
    netns.confine(&mut server);
    let server = Process::start(&mut server, Signal::TERM).unwrap();
    server.stdout.wait_for_text(patience(), "listening").unwrap();
    let client = netns.connect(ADDRESS.parse().unwrap()).unwrap();
    // It has answered, and closed its side.
    let mut answered = Vec::new();
    std::io::Read::read_to_end(&mut &client, &mut answered).unwrap();
    let options = [&ANYHOW[..], &["--timeout", "1s"]].concat();
    let (code, action) = took(&netns, &options);
    assert_eq!((code, &action["result"]), (3, &json!("timed_out")), "{action:#}");
    assert_eq!(action["steps"][0]["by"], "signal", "{action:#}");
    let after = &action["after"];
    assert_eq!(after["holder"]["class"], "no_process", "{action:#}");
    assert!(!is_alive(server.pid()));
    // What the next one is to do about it works.
    let (code, action) = took(&netns, &["--yes", "--reuseaddr"]);
    assert_eq!((code, &action["result"]), (0, &json!("already_free")), "{action:#}");
    drop(client);
}

/// How often a supervisor is played against; `PORTWATCH_RUNS` sets it.
fn rounds() -> u32 {
    std::env::var("PORTWATCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// A shell that restarts its server at once: free, bind, and again.
#[test]
fn beside_a_shell_that_restarts() {
    let netns = Netns::new();
    let starts = |address: &str| {
        let mut shell = programs::shell_loop(&format!("tcp/{address}/reuseaddr,listen hold"));
        netns.confine(&mut shell);
        let shell = Process::start(&mut shell, Signal::TERM).unwrap();
        shell.stdout.wait_for_text(patience(), "pid").unwrap();
        shell
    };
    let beside = starts(BESIDE);
    let bystander = server_of(&beside);
    for round in 0..rounds() {
        let shell = starts(ADDRESS);
        let server = server_of(&shell);
        // It also binds the port.
        is_freed(&netns, &ANYHOW);
        assert!(!is_alive(server) && !is_alive(shell.pid()), "round {round}");
        assert!(is_alive(bystander) && is_alive(beside.pid()), "round {round}");
    }
}

/// A program that nobody knows restarts its server at once: it is named, and goes on.
#[test]
fn beside_an_unknown_supervisor() {
    if programs::installed("python3").is_none() {
        return skip("commands", "no python3");
    }
    let netns = Netns::new();
    let beside = Helper::new(&netns).holds([tcp(BESIDE).listening()]);
    let mut supervisor = Command::new("python3");
    supervisor.args(["-c", SUPERVISOR]).arg(programs::binder());
    supervisor.arg(tcp(ADDRESS).reuseaddr().listening().to_string());
    netns.confine(&mut supervisor);
    let supervisor = Process::start(&mut supervisor, Signal::TERM).unwrap();
    supervisor.stdout.wait_for_text(patience(), "pid").unwrap();
    for round in 0..rounds() {
        let (code, action) = took(&netns, &ANYHOW);
        assert_eq!((code, &action["result"]), (3, &json!("taken")), "round {round}: {action:#}");
        let why = action["why"].as_str().unwrap();
        assert!(why.contains(&format!("python3[{}]", supervisor.pid())), "{why}");
        assert_eq!(action["steps"].as_array().map(Vec::len), Some(1), "{action:#}");
        assert!(is_alive(supervisor.pid()) && is_alive(beside.pid()), "round {round}");
    }
}

const SUPERVISOR: &str = "
import subprocess, sys
while True:
    subprocess.run([sys.argv[1], sys.argv[2], 'hold'])
";

fn server_of(shell: &Process) -> u32 {
    let server = shell.stdout.wait_until(patience(), |lines| {
        lines.iter().find_map(|line| line.json()?.get("pid")?.as_u64())
    });
    u32::try_from(server.unwrap()).unwrap()
}

/// A user's own process is the user's to end, another's is not.
#[test]
fn as_an_ordinary_user() {
    if programs::installed("setpriv").is_none() {
        return skip("exec_under_another_user", "no setpriv");
    }
    let netns = Netns::new();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--clear-groups", "--reuid", "65534", "--regid", "65534", "--"]);
        netns.confine(&mut command);
        command
    };
    // The kernel hides the descriptors of a process that changes its user without an exec.
    let mut own = as_nobody();
    own.arg(programs::binder()).args([&tcp(ADDRESS).listening().to_string(), "hold"]);
    let own = Process::start(&mut own, Signal::TERM).unwrap();
    own.stdout.wait_for_text(patience(), "pid").unwrap();
    let roots = Helper::new(&netns).holds([tcp(BESIDE).listening()]);
    let free = |target: &str| {
        let mut command = as_nobody();
        command.arg(programs::portwatch().unwrap()).args(["free", target, "--format", "json"]);
        command.args(ANYHOW);
        let said = run(&mut command);
        let action: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said}"));
        (said.code, action)
    };
    let (code, action) = free(BESIDE);
    assert_eq!((code, &action["result"]), (4, &json!("refused")), "{action:#}");
    let (code, action) = free(ADDRESS);
    assert_eq!((code, &action["result"]), (0, &json!("freed")), "{action:#}");
    assert!(!is_alive(own.pid()) && is_alive(roots.pid()));
}

/// A running agent has it in its stream, and `history` counts it.
#[test]
fn the_agent_has_it_on_record() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    is_freed(&scene.netns, &ANYHOW);
    let record = scene.agent.wait_until("the action", patience(), |log| {
        // A number of a namespace is used again.
        let is_ours = |action: &&Value| {
            action["netns"]["inode"] == scene.netns.inode
                && action["steps"][0]["signalled"][0]["pid"] == holder.pid()
        };
        log.actions.iter().find(is_ours).cloned()
    });
    let mut history = portwatch(&["history", "--format", "json"]);
    let folder = TempDir::new().unwrap();
    let line = folder.path().join("actions.jsonl");
    std::fs::write(&line, record.to_string()).unwrap();
    let said = run(history.arg(&line));
    let history: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(history["freed"][0]["freed"], 1, "{history:#}");
    assert_eq!(history["freed"][0]["holder"], "binder", "{history:#}");
    // Whoever logged in, if the tests run in a session.
    let by = record["session_user"].as_str().unwrap_or("root");
    assert_eq!(history["freed"][0]["by"], json!({by: 1}), "{history:#}");
}
