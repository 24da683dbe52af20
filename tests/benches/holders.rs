//! The time from the failed bind to the event on stdout, on a machine as full as a busy
//! server, compared with `ss -tlnp` and `lsof`, which show less. All in one run, so that the
//! ratios hold on any machine.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on says where"
)]

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    cgroup::Slice,
    command::portwatch,
    event::Event,
    helper::Helper,
    netns::Netns,
    op::{Op, tcp},
    process::Process,
    programs,
    stream::Silence,
};
use rustix::process::Signal;

const PROCESSES: u32 = 3_000;
const FILES: u32 = 100;
const CONNECTIONS: u32 = 25_000;
const TIME_WAIT: u32 = 10_000;

fn main() {
    println!(
        "on the machine: {PROCESSES} processes with {FILES} descriptors each, {} established \
         sockets, {TIME_WAIT} in TIME-WAIT\n",
        CONNECTIONS * 2
    );
    let _crowd = crowd();
    let agent = Agent::start(&["run", "--format", "json", "--storm-window", "0s"])
        .expect("the agent starts");
    let netns = Netns::new();

    println!(
        "{:42}{:>8}{:>12}{:>12}",
        "refused bind -> event on stdout", "events", "p50 ms", "p99 ms"
    );
    let own = Slice::new();
    let group = own.group("app.service");
    let on_record = row("holder on record", on_record(&agent, &netns));
    let near = row(
        "holder in a cgroup of its own",
        (0..100)
            .map(|n| passed_on(&agent, Helper::new(&netns).within(&group), 10_000 + n))
            .collect(),
    );
    let anywhere = row(
        "holder searched for everywhere",
        (0..100).map(|n| passed_on(&agent, Helper::new(&netns), 11_000 + n)).collect(),
    );

    // The tools for people, without an agent.
    drop(agent);
    println!("\n{:42}{:>8}{:>12}{:>12}", "portwatch explain", "runs", "p50 ms", "p99 ms");
    let explain_near = row(
        "holder in a cgroup of its own",
        (0..30).map(|n| explained(Helper::new(&netns).within(&group), 12_000 + n)).collect(),
    );
    let explain_anywhere = row(
        "holder searched for everywhere",
        (0..30).map(|n| explained(Helper::new(&netns), 13_000 + n)).collect(),
    );

    println!("\n{:42}{:>20}", "beside it", "ms");
    let ss = tool("ss", &["-tlnp"], 3);
    let lsof = tool("lsof", &["-nP", "-iTCP", "-sTCP:LISTEN"], 1);
    println!("\n{:42}{:>12}{:>12}", "so many times faster (p50)", "than ss", "than lsof");
    for (name, p50) in [
        ("on record", on_record),
        ("own cgroup", near),
        ("everywhere", anywhere),
        ("explain, own cgroup", explain_near),
        ("explain, everywhere", explain_anywhere),
    ] {
        let times = |other: Option<f64>| {
            other.map_or("not there".to_owned(), |other| format!("{:.0}", other / p50))
        };
        println!("{name:42}{:>12}{:>12}", times(ss), times(lsof));
    }
}

/// The processes and connections of a busy server.
fn crowd() -> Process {
    let crowd = programs::binder().with_file_name("crowd");
    let numbers = [PROCESSES, FILES, CONNECTIONS, TIME_WAIT].map(|number| number.to_string());
    let process = Process::start(Command::new(crowd).args(numbers), Signal::TERM).expect("starts");
    let ready = process.stdout.wait_for_text(Duration::from_secs(120), "ready");
    assert!(!matches!(ready, Err(Silence::Ended | Silence::TimedOut)), "{}", process.said());
    process
}

/// One holder that the agent has seen bind, one process that fails repeatedly.
fn on_record(agent: &Agent, netns: &Netns) -> Vec<f64> {
    let _holder = Helper::new(netns).holds([tcp("127.0.0.1:8080").listening()]);
    let mut prober = Helper::new(netns).holds([tcp("127.0.0.1:8081")]);
    let pid = prober.pid();
    (0..500)
        .map(|done| {
            let outcome = prober.does(tcp("127.0.0.1:8080"));
            let event = agent.wait_until("a refusal", Duration::from_secs(15), |log| {
                log.events.iter().filter(|event| event.pid == Some(pid)).nth(done).cloned()
            });
            is_explained(&event);
            milliseconds(event.at_ns.saturating_sub(outcome.at_ns))
        })
        .collect()
}

/// A holder that is not the recorded one: it inherited the socket, and the process that bound
/// it has exited. A new one each time, so that nothing is cached; on a port of its own,
/// because the child exits at any time.
fn passed_on(agent: &Agent, helper: Helper<'_>, port: u16) -> f64 {
    let netns = helper.netns();
    let address = format!("127.0.0.1:{port}");
    let holder = helper.holds([Op::from(tcp(&address).listening()), Op::Daemon]);
    let refused = Helper::new(netns).is_refused(tcp(&address));
    let event = agent.event_of(&refused);
    is_explained(&event);
    assert_eq!(event.number("/diagnosis/holder/pid"), Some(u64::from(holder.pid())), "{event}");
    milliseconds(event.at_ns.saturating_sub(refused.last().at_ns))
}

/// The same holder, by `explain`: from the start of the program to its end.
fn explained(helper: Helper<'_>, port: u16) -> f64 {
    let netns = helper.netns();
    let address = format!("127.0.0.1:{port}");
    let holder = helper.holds([Op::from(tcp(&address).listening()), Op::Daemon]);
    let mut command = portwatch(&["explain", "--format", "json", &port.to_string()]);
    netns.confine(&mut command);
    let begin = Instant::now();
    let out = command.output().unwrap();
    let taken = begin.elapsed();
    let answer: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["diagnosis"]["holder"]["pid"], holder.pid(), "{answer:#}");
    taken.as_secs_f64() * 1000.0
}

fn is_explained(event: &Arc<Event>) {
    assert_eq!(event.text("/diagnosis/cause"), "listener", "{event}");
    assert!(event.number("/diagnosis/holder/pid").is_some(), "{event}");
}

/// Prints a row and returns its median.
fn row(name: &str, mut taken: Vec<f64>) -> f64 {
    taken.sort_by(f64::total_cmp);
    let at = |share: usize| taken[(taken.len() * share / 100).min(taken.len() - 1)];
    println!("{name:42}{:>8}{:>12.2}{:>12.2}", taken.len(), at(50), at(99));
    at(50)
}

/// The fastest of some runs.
fn tool(name: &str, arguments: &[&str], runs: u32) -> Option<f64> {
    let path = programs::installed(name).or_else(|| {
        let path = Path::new("/bin").join(name);
        path.exists().then_some(path)
    })?;
    let run = || {
        let begin = Instant::now();
        let ended = Command::new(&path)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ended.ok().map(|_| begin.elapsed().as_secs_f64() * 1000.0)
    };
    let best = (0..runs).filter_map(|_| run()).min_by(f64::total_cmp)?;
    println!("{:42}{best:>20.0}", format!("{name} {}", arguments.join(" ")));
    Some(best)
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1000.0
}
