//! Compares what `portwatch explain` and `portwatch wait` say beside an agent that saw all
//! sockets being made with the kernel's own answer.

use std::{
    fmt::{self, Display, Formatter, Write as _},
    net::{IpAddr, SocketAddr},
    thread,
};

use portwatch::evidence::Family;
use portwatch_tests::{
    agent::{Agent, only_ports},
    command::{portwatch, run},
    kernel, say,
    skip::in_guest,
};
use proptest::{prelude::*, strategy::ValueTree as _};
use rustix::io::Errno;
use serde_json::Value;

use crate::{
    bugs,
    live::{Live, Namespace},
    machine::{Expected, Id, Machine},
    model::Kernel,
    number, runner,
    scenario::{Device, New, Scenario, To, Transport, scenarios, tos},
    steps::{Step, steps},
};

const SCENARIOS: u32 = 400;
/// The same in an emulated guest, where each run of the program takes a second.
const IN_GUEST: u32 = 60;
const SEED: u32 = 1;
/// Of how many answers one may be "not sure".
const ONE_UNSURE_IN: u32 = 200;
/// The same before Linux 6.8, which does not list sockets that are bound and do not listen:
/// nearly every answer that is not a failure depends on them.
const LISTS_BOUND: (u32, u32) = (6, 8);

/// The bind in question.
#[derive(Clone, Copy, Debug)]
struct Question {
    transport: Transport,
    family: Family,
    to: To,
}

/// What was said, and what was so.
#[derive(Default)]
struct Answers {
    refused: u32,
    passed: u32,
    unsure: Vec<String>,
    wrong: Vec<String>,
}

#[test]
fn explain_is_right_beside_an_agent_that_saw_the_sockets() {
    let _alone = crate::alone();
    let usual = if in_guest() { IN_GUEST } else { SCENARIOS };
    let count = number("PORTWATCH_EXPLAINED").unwrap_or(usual);
    let seed = number("PORTWATCH_SEED").unwrap_or(SEED);
    // No scenario uses port 1, so the agent has nothing to report.
    let mut options = vec!["run".to_owned()];
    options.extend(only_ports([1]));
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let _agent = Agent::start(&options).unwrap();
    // The namespace belongs to the thread.
    let answers = thread::spawn(move || ask_all(count, seed)).join().unwrap();
    say(&answers.to_string());
    let Answers { refused, passed, unsure, wrong } = &answers;
    let said = refused + passed + u32::try_from(unsure.len() + wrong.len()).unwrap();
    assert!(wrong.is_empty(), "{} of {said} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused * 10 > said, "{answers}");
    if kernel::is_at_least(LISTS_BOUND.0, LISTS_BOUND.1) {
        assert!(passed * 10 > said, "{answers}");
        let most = usize::try_from(said / ONE_UNSURE_IN).unwrap();
        assert!(unsure.len() <= most, "{} of {said}:\n{}", unsure.len(), unsure.join("\n"));
    }
}

fn ask_all(count: u32, seed: u32) -> Answers {
    let mut runner = runner(count, seed);
    let mut namespace = Namespace::enter();
    let mut answers = Answers::default();
    let asked = (scenarios(), questions());
    for _ in 0..count {
        let (scenario, question) = asked.new_tree(&mut runner).unwrap().current();
        if !namespace.is_fresh() {
            namespace = Namespace::enter();
        }
        ask(&scenario, question, &mut namespace, &mut answers);
    }
    answers
}

fn questions() -> impl Strategy<Value = Question> {
    (prop::bool::weighted(0.3), any::<bool>(), tos()).prop_map(|(udp, v6, to)| Question {
        transport: if udp { Transport::Udp } else { Transport::Tcp },
        family: if v6 { Family::Ipv6 } else { Family::Ipv4 },
        to: To { any_port: false, ..to },
    })
}

/// Plays a scenario, asks, and tries what was asked.
fn ask(scenario: &Scenario, question: Question, namespace: &mut Namespace, answers: &mut Answers) {
    let other_device = namespace.other_device;
    let mut live = namespace.begin(scenario.settings);
    let mut machine = Machine::new(Kernel::of(bugs::version()), live.settings, other_device);
    let mut trace = String::new();
    let mut next = 1;
    for op in &scenario.ops {
        for step in steps(&machine, op, next) {
            next += usize::from(step.is_of_new());
            let _ = take(&mut live, &mut machine, &step, &mut trace);
        }
    }
    let address = question.to.address(question.family);
    let at = SocketAddr::new(address, live.port());
    let explained = explain(question.transport, at);
    let waited = [false, true].map(|reuseaddr| wait(question.transport, at, reuseaddr));
    for (reuseaddr, waited) in [false, true].into_iter().zip(waited) {
        let (expected, result) =
            bind(&mut live, &mut machine, question, address, reuseaddr, next, &mut trace);
        next += 1;
        // The kernel has a bug that the test of the model knows.
        if !expected.agrees(result) {
            continue;
        }
        let key = if reuseaddr { "with_reuseaddr" } else { "without_reuseaddr" };
        let outcome = explained.pointer(&format!("/bind/{key}")).and_then(Value::as_str).unwrap();
        let is_by_the_rule = !matches!(expected, Expected::Passed(..));
        for (who, outcome) in [("explain", outcome), ("wait", waited)] {
            let told = |what: &str| format!("{trace}  {who}: {what}\n{}", sockets(&explained));
            match (outcome, result) {
                ("passes", Ok(())) => answers.passed += 1,
                ("refused", Err(Errno::ADDRINUSE)) => answers.refused += 1,
                ("refused", Ok(())) if !is_by_the_rule => answers.refused += 1,
                // A program that has only bound its socket may be about to listen.
                ("refused", Ok(())) if who == "wait" && is_bound(&explained) => {
                    answers.refused += 1
                }
                // It says that there may be sockets which it cannot see.
                ("passes", Err(Errno::ADDRINUSE)) if !lists_all(&explained) => {
                    answers.unsure.push(told("passes, but bound sockets are not listed"));
                }
                // It waits until it is sure.
                ("refused", Ok(())) if who == "wait" => answers.unsure.push(told("held")),
                ("unknown", _) => answers.unsure.push(told("not sure")),
                (outcome, result) => {
                    answers.wrong.push(told(&format!("{outcome}, but {result:?}")));
                }
            }
        }
    }
}

/// Whether the answer is about all sockets: before 6.8 it has a gap where bound sockets are.
fn lists_all(explained: &Value) -> bool {
    let gaps = explained["gaps"].as_array().into_iter().flatten();
    let mut reasons = gaps.filter_map(|gap| gap["why"].as_str());
    !reasons.any(|why| why.starts_with("before Linux 6.8 "))
}

/// Tries the bind on a socket that is closed again.
fn bind(
    live: &mut Live<'_>,
    machine: &mut Machine,
    question: Question,
    address: IpAddr,
    reuseaddr: bool,
    id: Id,
    trace: &mut String,
) -> (Expected, Result<(), Errno>) {
    let new = New {
        transport: question.transport,
        family: question.family,
        uid: 0,
        reuseaddr,
        reuseport: false,
        v6only: false,
        device: Device::None,
        program: false,
    };
    let _ = take(live, machine, &Step::Open { id, new }, trace);
    let step = Step::Bind { id, address, any_port: false };
    let expected = machine.expects(&step);
    let result = take(live, machine, &step, trace);
    let _ = take(live, machine, &Step::Close { id }, trace);
    (expected, result)
}

fn take(
    live: &mut Live<'_>,
    machine: &mut Machine,
    step: &Step,
    trace: &mut String,
) -> Result<(), Errno> {
    let answer = live.takes(step);
    match answer {
        Ok(()) => writeln!(trace, "  {step}"),
        Err(errno) => writeln!(trace, "  {step}: {errno}"),
    }
    .unwrap();
    machine.learns(step, answer, crate::new_address(live, step));
    answer
}

fn explain(transport: Transport, at: SocketAddr) -> Value {
    answer(transport, &["explain", &at.to_string()])
}

/// In the words of `explain`; what it assumes is not sure.
fn wait(transport: Transport, at: SocketAddr, reuseaddr: bool) -> &'static str {
    let at = at.to_string();
    let mut arguments = vec!["wait", &at, "--free", "--timeout", "0"];
    if reuseaddr {
        arguments.push("--reuseaddr");
    }
    let said = answer(transport, &arguments);
    let assumes = said.pointer("/notes").and_then(Value::as_array).is_some_and(|it| !it.is_empty());
    match said.pointer("/free").and_then(Value::as_bool).unwrap() {
        true if assumes => "unknown",
        true => "passes",
        false => "refused",
    }
}

/// The answer of the program, which is in the namespace of the calling thread.
fn answer(transport: Transport, arguments: &[&str]) -> Value {
    let udp: &[_] = if transport == Transport::Udp { &["--udp"] } else { &[] };
    let said = run(&mut portwatch(&[arguments, &["--format", "json"], udp].concat()));
    serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said}"))
}

/// Returns whether there is a socket that is bound and no more, or one of UDP.
fn is_bound(explained: &Value) -> bool {
    let sockets = explained.pointer("/sockets").and_then(Value::as_array).into_iter().flatten();
    let udp = explained.pointer("/asked/protocol").and_then(Value::as_str) == Some("udp");
    let bound = |socket: &Value| socket.get("state").and_then(Value::as_str) == Some("BOUND");
    udp || sockets.into_iter().any(bound)
}

/// The sockets of an answer, without what does not decide.
fn sockets(said: &Value) -> String {
    let mut text = String::new();
    for socket in said.pointer("/sockets").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| socket.get(key).cloned().unwrap_or_default();
        let keys = ["state", "local", "inode", "reuseaddr", "reuseport", "v6only", "device"];
        let values = keys.map(|key| format!("{key} {}", of(key)));
        writeln!(text, "    {}", values.join(", ")).unwrap();
    }
    text
}

impl Display for Answers {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { refused, passed, unsure, wrong } = self;
        let (unsure, wrong) = (unsure.len(), wrong.len());
        write!(f, "explain: {refused} held, {passed} free, {unsure} not sure, {wrong} wrong")
    }
}
