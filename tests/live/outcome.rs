//! What becomes of a failed bind: each kind of outcome, from real processes.

use std::{
    collections::HashMap,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    cgroup::Slice,
    event::Event,
    helper::{EADDRINUSE, Holder},
    log::Log,
    op::{Op, Socket, tcp, udp},
    patience,
    process::Process,
    programs::{Alias, binder, portwatch},
    scene::Scene,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

mod hostile;
pub mod manager;

const ADDRESS: &str = "127.0.0.1:8080";
/// Of each kind so many must be right.
const MANY: u16 = 200;
const FIRST_PORT: u16 = 20_000;

/// An agent that reports each failed bind, and its outcome as soon as that is known: nothing
/// here takes as long as the window, even in an emulated guest.
fn agent() -> Agent {
    agent_within("60s")
}

/// The same for outcomes that are only known at the end of the window.
fn agent_within(window: &str) -> Agent {
    let arguments = ["run", "--format", "json", "--storm-window", "0s", "--outcome-window"];
    Agent::start(&[&arguments[..], &[window]].concat()).unwrap()
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn ports() -> impl Iterator<Item = u16> {
    FIRST_PORT..FIRST_PORT + MANY
}

/// A process that does nothing yet.
fn idle(scene: &Scene) -> Holder {
    scene.helper().holds(Vec::<Op>::new())
}

/// All outcomes of the first event at each port here, once there are so many.
#[track_caller]
fn outcomes(agent: &Agent, scene: &Scene, many: u16) -> Vec<Value> {
    agent.wait_until("all outcomes", patience() * 4, |log| {
        let found: Vec<_> =
            first_events(log, scene).iter().filter_map(|event| of(log, event)).collect();
        (found.len() == usize::from(many)).then_some(found)
    })
}

fn first_events(log: &Log, scene: &Scene) -> Vec<Arc<Event>> {
    let mut first = HashMap::new();
    for event in log.events_in(&scene.netns) {
        let port = event.at("/failure/port").as_u64();
        first.entry(port).or_insert_with(|| Arc::clone(event));
    }
    first.into_values().collect()
}

fn of(log: &Log, event: &Event) -> Option<Value> {
    let mut about = log.outcomes.iter().filter(|outcome| &outcome["id"] == event.at("/id"));
    let outcome = about.next().cloned();
    assert!(about.next().is_none(), "told twice\n{event}");
    outcome
}

#[track_caller]
fn all_are(outcomes: &[Value], expected: &str) {
    let others: Vec<_> = outcomes.iter().filter(|outcome| outcome["outcome"] != expected).collect();
    assert!(others.is_empty(), "{} of {}: {others:#?}", others.len(), outcomes.len());
}

/// Whoever has waited for a hand-over has the port in the end.
#[test]
fn recovered() {
    let (scene, agent) = (Scene::alone(), agent());
    let holder = scene.helper().holds(ports().map(|port| tcp(&at(port)).listening()));
    let mut taker = idle(&scene);
    for port in ports() {
        assert_eq!(taker.does(tcp(&at(port)).listening()).errno, EADDRINUSE);
    }
    drop(holder);
    for port in ports() {
        assert_eq!(taker.does(tcp(&at(port)).listening()).errno, 0);
    }
    let found = outcomes(&agent, &scene, MANY);
    all_are(&found, "recovered");
    for outcome in &found {
        assert_eq!(outcome["process"]["pid"], taker.pid());
        assert_eq!(outcome["bound"], at(outcome["port"].as_u64().unwrap() as u16));
        assert_eq!(outcome["tries"], 1, "{outcome:#}");
    }
}

/// Programs that try the next port.
#[test]
fn another_port() {
    let (scene, agent) = (Scene::alone(), agent_within("1s"));
    let _holder = scene.helper().holds(ports().map(|port| tcp(&at(port)).listening()));
    for port in ports() {
        let next = tcp(&at(port + MANY)).listening();
        scene.helper().succeeds([tcp(&at(port)).listening(), next]);
    }
    let found = outcomes(&agent, &scene, MANY);
    all_are(&found, "another_port");
    for outcome in &found {
        let port = outcome["port"].as_u64().unwrap() as u16;
        assert_eq!(outcome["bound"], at(port + MANY));
    }
    // One that stays is looked at until the window's end.
    let mut stays = idle(&scene);
    stays.does(tcp(&at(FIRST_PORT)));
    stays.does(tcp("127.0.0.1:0").listening());
    let event = agent.wait_for("the one that stays", |event| event.pid == Some(stays.pid()));
    assert_eq!(agent.outcome_of(&event)["outcome"], "another_port");
}

/// Two people's sessions: the second program takes the next port, and nobody is to be stopped.
#[test]
fn another_port_than_another_persons_session() {
    let ready = [tcp(ADDRESS), tcp("127.0.0.1:8081")].map(Socket::listening);
    let bound = [udp(ADDRESS), udp("127.0.0.1:8081")];
    for (name, sockets) in [("sshd", ready), ("mosh-server", bound)] {
        let (scene, slice, agent) = (Scene::new(), Slice::new(), agent_within("1s"));
        let theirs = slice.group("user.slice/user-1000.slice/session-7.scope");
        let ours = slice.group("user.slice/user-1001.slice/session-8.scope");
        let server = Alias::new(name);
        let holder = scene.helper().run_as(&server).within(&theirs);
        let holder = holder.holds([sockets[0].clone()]);
        let tries = scene.helper().run_as(&server).within(&ours).runs(sockets);
        let event = agent.event_of(&tries);
        event.is_explained().includes(&json!({
            "diagnosis": {"holder": {"class": "squatter", "session": "7", "pid": holder.pid()}},
        }));
        assert_eq!(event.at("/diagnosis/moves/0/risk"), "none", "{event}");
        let outcome = agent.outcome_of(&event);
        assert_eq!(outcome["outcome"], "another_port", "{outcome:#}");
        assert_eq!(outcome["bound"], "127.0.0.1:8081", "{outcome:#}");
    }
}

/// Programs that give up.
#[test]
fn exited() {
    let (scene, agent) = (Scene::alone(), agent());
    let _holder = scene.helper().holds(ports().map(|port| tcp(&at(port)).listening()));
    for port in ports() {
        let refused = scene.helper().vanishing().runs([tcp(&at(port))]);
        assert_eq!(refused.code, Some(EADDRINUSE));
    }
    let found = outcomes(&agent, &scene, MANY);
    all_are(&found, "exited");
    let exit = json!({"status": EADDRINUSE, "signal": null});
    assert!(found.iter().all(|outcome| outcome["exit"] == exit), "{found:#?}");
}

#[test]
fn ended_by_a_signal() {
    let (scene, agent) = (Scene::new(), agent());
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    let event = agent.event_of(&refused);
    let pid = Pid::from_raw(i32::try_from(refused.pid).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let outcome = agent.outcome_of(&event);
    assert_eq!(outcome["outcome"], "exited");
    assert_eq!(outcome["exit"], json!({"status": null, "signal": 15}));
}

/// Programs that try again and again, only as many at once as the agent can follow. An attempt
/// in the second half of the window is what counts: on a machine that is too slow for one, the
/// process is running without its port.
#[test]
fn still_failing() {
    const WINDOW: Duration = Duration::from_secs(2);
    const PACE: u16 = 9_000;
    let scene = Scene::alone();
    let agent = Agent::start(&["run", "--format", "json", "--outcome-window", "2s"]).unwrap();
    let sockets = ports().map(|port| tcp(&at(port)).listening());
    let pace = tcp(&format!("0.0.0.0:{PACE}")).listening();
    let _holder = scene.helper().holds(sockets.chain([pace]));
    // Failures at different addresses are not identical: each is an event.
    let mut addresses = (0..u32::from(u16::MAX)).map(|number| {
        let [.., high, low] = number.to_be_bytes();
        format!("127.1.{high}.{low}:{PACE}")
    });
    let mut attempts: HashMap<u64, Vec<u64>> = HashMap::new();
    let (mut found, mut first, mut at_once) = (Vec::new(), FIRST_PORT, 2);
    while first < FIRST_PORT + MANY {
        let mut taker = idle(&scene);
        let last = (first + at_once).min(FIRST_PORT + MANY);
        let mut slowest = Duration::ZERO;
        while found.len() < usize::from(last - FIRST_PORT) {
            let begun = Instant::now();
            for port in first..last {
                let failed = taker.does(tcp(&at(port)));
                assert_eq!(failed.errno, EADDRINUSE);
                attempts.entry(port.into()).or_default().push(failed.at_ns);
            }
            // Its event comes after the work on those before it.
            let pace = tcp(&addresses.next().unwrap());
            agent.event_of(&scene.helper().is_refused(pace));
            slowest = slowest.max(begun.elapsed());
            found = agent.look(|log| {
                let events = first_events(log, &scene);
                let events = events.iter().filter(|event| event.at("/failure/port") != PACE);
                events.filter_map(|event| of(log, event)).collect()
            });
        }
        let each = slowest / u32::from(last - first + 1);
        let many = WINDOW.as_micros() / 8 / each.as_micros().max(1);
        at_once = u16::try_from(many).unwrap_or(MANY).clamp(1, MANY / 4);
        first = last;
    }
    let after = |part: Duration| u64::try_from(part.as_nanos()).unwrap();
    let still_tries = |outcome: &Value| {
        let times = &attempts[&outcome["port"].as_u64().unwrap()];
        let late = times[0] + after(WINDOW / 2)..times[0] + after(WINDOW);
        times.iter().any(|at_ns| late.contains(at_ns))
    };
    let (tried, paused): (Vec<_>, Vec<_>) = found.into_iter().partition(still_tries);
    all_are(&tried, "still_failing");
    assert!(tried.iter().all(|outcome| outcome["tries"].as_u64() > Some(1)), "{tried:#?}");
    assert!(paused.len() < usize::from(MANY / 2), "this machine is too slow: {paused:#?}");
}

/// Programs that go on without the port.
#[test]
fn running_without() {
    let (scene, agent) = (Scene::alone(), agent_within("1s"));
    let _holder = scene.helper().holds(ports().map(|port| tcp(&at(port)).listening()));
    let mut taker = idle(&scene);
    for port in ports() {
        assert_eq!(taker.does(tcp(&at(port))).errno, EADDRINUSE);
    }
    let found = outcomes(&agent, &scene, MANY);
    all_are(&found, "running_without");
    assert!(found.iter().all(|outcome| outcome["gaps"] == json!([])), "{found:#?}");
}

#[test]
fn a_server_that_goes_on_in_a_child_recovers() {
    let (scene, agent) = (Scene::new(), agent());
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let mut taker = scene.helper().holds([tcp("127.0.0.1:0")]);
    let first = taker.pid();
    assert_eq!(taker.does(tcp(ADDRESS).listening()).errno, EADDRINUSE);
    let child = taker.does(Op::Daemon).pid;
    assert_ne!(child, first);
    drop(holder);
    assert_eq!(taker.does(tcp(ADDRESS).listening()).errno, 0);
    let event = agent.wait_for("the first", |event| event.pid == Some(first));
    let outcome = agent.outcome_of(&event);
    assert_eq!(outcome["outcome"], "recovered", "{outcome:#}");
    assert_eq!(outcome["process"]["pid"], child);
}

#[test]
fn the_next_process_of_a_unit_recovers_it() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let agent = Agent::start(&[
        "run", "--format", "json", "--storm-window", "0s", "--outcome-window", "10s",
    ])
    .unwrap();
    let unit = slice.group("app.service");
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let failed: Vec<_> =
        (0..3).map(|_| scene.helper().within(&unit).runs([tcp(ADDRESS).listening()])).collect();
    drop(holder);
    let server = scene.helper().within(&unit).holds([tcp(ADDRESS).listening()]);
    for (number, failed) in failed.iter().enumerate() {
        let outcome = agent.outcome_of(&agent.event_of(failed));
        assert_eq!(outcome["outcome"], "recovered", "{outcome:#}");
        assert_eq!(outcome["process"]["pid"], server.pid());
        assert_eq!(outcome["tries"], 3 - number, "{outcome:#}");
        assert_eq!(outcome["unit"]["name"], "app.service");
    }
}

#[test]
fn a_listen_that_failed_needs_a_listen() {
    let (scene, agent) = (Scene::new(), agent());
    let mut one = scene.helper().holds([tcp(ADDRESS).reuseaddr()]);
    let mut other = scene.helper().holds([tcp(ADDRESS).reuseaddr()]);
    assert_eq!(one.does(Op::Listen(0)).errno, 0);
    assert_eq!(other.does(Op::Listen(0)).errno, EADDRINUSE);
    let event = agent.wait_for("the listen", |event| event.pid == Some(other.pid()));
    drop(one);
    assert_eq!(other.does(Op::Listen(0)).errno, 0);
    let outcome = agent.outcome_of(&event);
    assert_eq!(outcome["outcome"], "recovered", "{outcome:#}");
}

#[test]
fn udp_has_outcomes_too() {
    let (scene, agent) = (Scene::new(), agent());
    let holder = scene.helper().holds([udp(ADDRESS)]);
    let mut taker = idle(&scene);
    assert_eq!(taker.does(udp(ADDRESS)).errno, EADDRINUSE);
    drop(holder);
    assert_eq!(taker.does(udp(ADDRESS)).errno, 0);
    let event = agent.wait_for("the bind", |event| event.pid == Some(taker.pid()));
    assert_eq!(agent.outcome_of(&event)["outcome"], "recovered");
}

/// Each event of a storm, the summaries as well.
#[test]
fn a_storm_and_its_summary_have_one_outcome_each() {
    let scene = Scene::new();
    let windows = ["--storm-window", "1s", "--outcome-window", "1s"];
    let agent = Agent::start(&[&["run", "--format", "json"][..], &windows].concat()).unwrap();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let mut taker = idle(&scene);
    assert_eq!(taker.does(Op::Storm(ADDRESS.parse().unwrap(), 5_000)).refused, 5_000);
    let about = |event: &Event| event.pid == Some(taker.pid());
    let all = agent.wait_until("all of the storm", patience(), |log| {
        let events: Vec<_> = log.events.iter().filter(|event| about(event)).cloned().collect();
        (events.iter().map(|event| event.count).sum::<u64>() == 5_000).then_some(events)
    });
    assert!(all.len() > 1, "no summary");
    let mut outcomes: Vec<_> = all.iter().map(|event| agent.outcome_of(event)).collect();
    let last = outcomes.pop().unwrap();
    assert_eq!(last["outcome"], "running_without", "{last:#}");
    // On a slow machine the storm takes longer than a window.
    let expected = ["running_without", "still_failing"].map(Value::from);
    assert!(outcomes.iter().all(|one| expected.contains(&one["outcome"])), "{outcomes:#?}");
}

/// In the command's own terminal, as one line behind the block.
#[test]
fn exec_tells_it_in_a_line() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let mut command = Command::new(portwatch().unwrap());
    command.args(["exec", "--"]).arg(binder()).arg(tcp(ADDRESS).to_string());
    scene.netns.confine(&mut command);
    let mut process = Process::start(&mut command, Signal::KILL).unwrap();
    process.wait_or_panic(patience());
    let said = process.stderr.wait_for_end(patience());
    let mut lines = said.lines().filter_map(|line| line.strip_prefix("outcome: "));
    let line = lines.next().unwrap_or_else(|| panic!("no outcome in\n{said}"));
    let parts = ["binder[", "exited with status 98 after", "without tcp 127.0.0.1:8080"];
    assert!(parts.iter().all(|part| line.contains(part)) && lines.next().is_none(), "{said}");
}

#[test]
fn without_a_window_there_are_none() {
    let scene = Scene::new();
    let arguments = ["run", "--format", "json", "--outcome-window", "0s"];
    let mut agent = Agent::start(&arguments).unwrap();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().runs([tcp(ADDRESS)]);
    agent.event_of(&refused);
    agent.end_by(Signal::TERM);
    assert!(agent.look(|log| log.outcomes.is_empty()));
}
