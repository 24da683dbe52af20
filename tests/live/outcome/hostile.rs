//! Processes that make it hard to follow them, and users who fail many binds.

use std::process::Command;

use portwatch_tests::{
    agent::Agent,
    helper::EADDRINUSE,
    op::{Op, tcp},
    patience,
    process::Process,
    programs::{binder, installed},
    scene::Scene,
    skip::{needs, skip},
};
use rustix::process::Signal;
use serde_json::json;

use super::{ADDRESS, agent, agent_within, idle};

/// The processes of one user fill that user's share of the tables only.
#[test]
fn beside_ten_thousand_processes_of_another_user() {
    const MANY: u32 = 10_000;
    let arguments = ["run", "--format", "json", "--outcome-window", "10s"];
    let (scene, agent) = (Scene::new(), Agent::start(&arguments).unwrap());
    agent.only_count(&scene.netns);
    let victims = Scene::new();
    let _flooded = scene.helper().holds([tcp(ADDRESS).listening()]);
    let holder = victims.helper().holds([tcp(ADDRESS).listening()]);
    let flood = scene.helper().by(1000);
    let mut flood = flood.holds(Vec::<Op>::new());
    let mut victim = victims.helper().by(1001).holds(Vec::<Op>::new());
    flood.tells(Op::Fork(ADDRESS.parse().unwrap(), MANY));
    assert_eq!(victim.does(tcp(ADDRESS).listening()).errno, EADDRINUSE);
    let event = agent.wait_for("the victim", |event| event.pid == Some(victim.pid()));
    drop(holder);
    assert_eq!(victim.does(tcp(ADDRESS).listening()).errno, 0);
    let outcome = agent.outcome_of(&event);
    assert_eq!(outcome["outcome"], "recovered", "{outcome:#}");
    assert_eq!((&outcome["tries"], &outcome["gaps"]), (&json!(1), &json!([])), "{outcome:#}");
}

/// The shell runs each attempt as another process.
#[test]
fn the_next_process_of_a_shells_loop_recovers_it() {
    // Without the parent of a process that has exited there is no loop.
    if needs("arguments_of_the_gone", (5, 11)) {
        return;
    }
    let (scene, agent) = (Scene::new(), agent());
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let script = format!(
        "while sleep 0.02; do '{}' vanish tcp/{ADDRESS}/listen hold && break; done",
        binder().display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    scene.netns.confine(&mut shell);
    let shell = Process::start(&mut shell, Signal::TERM).unwrap();
    let mut events = (0..3).map(|number| {
        agent.wait_until("an attempt", patience(), |log| {
            log.events_in(&scene.netns).nth(number).cloned()
        })
    });
    let [first, ..] = [events.next().unwrap(), events.next().unwrap(), events.next().unwrap()];
    assert_eq!(first.at("/process/ppid"), shell.pid());
    drop(holder);
    let outcome = agent.outcome_of(&first);
    assert_eq!(outcome["outcome"], "recovered", "{outcome:#}");
    assert_ne!(outcome["process"]["pid"].as_u64(), first.pid.map(u64::from));
}

/// It has other numbers there than the kernel side sees.
#[test]
fn a_process_in_another_pid_namespace() {
    let Some(unshare) = installed("unshare") else {
        skip("outcomes_in_a_pid_namespace", "no unshare(1)");
        return;
    };
    let (scene, agent) = (Scene::new(), agent());
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let op = tcp(ADDRESS).listening().to_string();
    let mut apart = Command::new(unshare);
    apart.args(["--pid", "--fork", "--kill-child"]).arg(binder()).arg(&op);
    scene.netns.confine(&mut apart);
    let mut process = Process::start(&mut apart, Signal::KILL).unwrap();
    process.wait_or_panic(patience());
    let event =
        agent.wait_until("it", patience(), |log| log.events_in(&scene.netns).next().cloned());
    let outcome = agent.outcome_of(&event);
    assert_eq!(outcome["outcome"], "exited", "{outcome:#}");
    assert_eq!(outcome["exit"], json!({"status": EADDRINUSE, "signal": null}));
    assert_eq!(outcome["process"]["pid"].as_u64(), event.pid.map(u64::from));
    drop(holder);
}

/// All ports of the range are taken, until one is released.
#[test]
fn any_port_recovers_by_any_port() {
    let (scene, agent) = (Scene::new(), agent());
    scene.netns.set("ipv4/ip_local_port_range", "40000 40009");
    let holder = scene.helper().holds([tcp("127.0.0.1:0").listening().repeated(10)]);
    let mut taker = idle(&scene);
    assert_eq!(taker.does(tcp("127.0.0.1:0").listening()).errno, EADDRINUSE);
    let event = agent.wait_for("the bind", |event| event.pid == Some(taker.pid()));
    drop(holder);
    assert_eq!(taker.does(tcp("127.0.0.1:0").listening()).errno, 0);
    let outcome = agent.outcome_of(&event);
    assert_eq!(outcome["outcome"], "recovered", "{outcome:#}");
}

/// The process exits with status 0, and leaves another program running.
#[test]
fn another_program_in_a_child() {
    let (scene, agent) = (Scene::new(), agent_within("1s"));
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let mut taker = scene.helper().holds([tcp("127.0.0.1:0")]);
    let first = taker.pid();
    assert_eq!(taker.does(tcp(ADDRESS).listening()).errno, EADDRINUSE);
    let event = agent.wait_for("the bind", |event| event.pid == Some(first));
    taker.tells(Op::Become(binder()));
    let outcome = agent.outcome_of(&event);
    assert_eq!(outcome["outcome"], "running_without", "{outcome:#}");
}
