//! Compares the conflict rules with the running kernel. Both run random scenarios, and the
//! model must predict the result of each bind and listen. Its reason for a failure is then
//! compared with what an observer could have known.
//!
//! `PORTWATCH_SCENARIOS=100000` runs this many, `PORTWATCH_SEED=7` selects others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test and says where"
)]

mod bugs;
mod explained;
mod groups;
mod live;
mod machine;
mod model;
mod scenario;
mod seen;
mod steps;
mod tally;

use std::{
    cell::RefCell,
    env,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use portwatch_tests::say;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use strum::VariantArray as _;

use crate::{
    bugs::{Bug, Version},
    live::{Live, Namespace},
    machine::{Answer, Expected, Machine},
    model::Kernel,
    scenario::{Scenario, scenarios},
    steps::{Step, steps},
    tally::Tally,
};

const SCENARIOS: u32 = 10_000;
const SEED: u32 = 1;

/// Held by each test that makes sockets or starts programs. A program that is being started has
/// all files of its parent until execve(2), so that a socket which another test closed meanwhile
/// would still hold its port.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // A test that failed has told so itself.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_model_foresees_the_kernel() {
    let _alone = alone();
    let scenarios = number("PORTWATCH_SCENARIOS").unwrap_or(SCENARIOS);
    let seed = number("PORTWATCH_SEED").unwrap_or(SEED);
    // The namespace belongs to the thread, so no other test is in it.
    let played = thread::spawn(move || play(scenarios, seed));
    if let Err(mismatch) = played.join().unwrap() {
        panic!("{mismatch}");
    }
}

fn number(variable: &str) -> Option<u32> {
    env::var(variable).ok().map(|value| value.parse().unwrap())
}

fn play(count: u32, seed: u32) -> Result<(), String> {
    let start = Instant::now();
    let version = bugs::version();
    let namespace = RefCell::new(Namespace::enter());
    let tally = RefCell::new(Tally::default());
    let result = runner(count, seed).run(&scenarios(), |scenario| {
        let mut namespace = namespace.borrow_mut();
        if !namespace.is_fresh() {
            *namespace = Namespace::enter();
        }
        let (trace, played) = play_one(&scenario, &mut namespace, version, &mut tally.borrow_mut());
        played.map_err(|wrong| TestCaseError::fail(format!("{trace}  but {wrong}")))
    });
    let seconds = start.elapsed().as_secs_f64();
    let tally = tally.into_inner();
    say(&format!("{count} scenarios on {version:?} in {seconds:.1} s\n{tally}"));
    match result {
        Ok(()) => {
            tally.assert_not_vacuous(count);
            Ok(())
        }
        Err(TestError::Fail(trace, scenario)) => {
            let settings = scenario.settings;
            Err(format!("kernel {version:?} and model differ, with {settings:?}:\n{trace}"))
        }
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
    }
}

fn runner(cases: u32, seed: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Runs a scenario on both, and returns what happened, and what should have happened instead
/// if they differ.
fn play_one(
    scenario: &Scenario,
    namespace: &mut Namespace,
    version: Version,
    tally: &mut Tally,
) -> (String, Result<(), String>) {
    let other_device = namespace.other_device;
    let mut live = namespace.begin(scenario.settings);
    let mut machine = Machine::new(Kernel::of(version), live.settings, other_device);
    let mut trace = String::new();
    let mut next = 1;
    for op in &scenario.ops {
        for step in steps(&machine, op, next) {
            next += usize::from(step.is_of_new());
            let answer = live.takes(&step);
            match answer {
                Ok(()) => writeln!(trace, "  {step}"),
                Err(errno) => writeln!(trace, "  {step}: {errno}"),
            }
            .unwrap();
            if let Err(wrong) = compare(&machine, &step, answer, version, tally) {
                return (trace, Err(wrong));
            }
            machine.learns(&step, answer, new_address(&live, &step));
        }
    }
    (trace, Ok(()))
}

/// Compares the kernel's answer with the model's, and checks the judgement of the blocking
/// socket.
fn compare(
    machine: &Machine,
    step: &Step,
    answer: Answer,
    version: Version,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut expected = machine.expects(step);
    if !expected.agrees(answer) {
        let excuse = excuse(machine, step, answer, version);
        let (bug, instead) = excuse.ok_or_else(|| format!("expected: {expected}"))?;
        tally.excuses(bug);
        expected = instead;
    }
    tally.counts(step, expected, machine.is_crowded());
    match expected {
        Expected::Refusal(by, clause) => {
            seen::check(Kernel::of(version).rule, machine, step, by, clause)
        }
        _ => Ok(()),
    }
}

/// Returns the bug of this kernel that explains the answer, and the model's result with it.
fn excuse(
    machine: &Machine,
    step: &Step,
    answer: Answer,
    version: Version,
) -> Option<(Bug, Expected)> {
    Bug::VARIANTS.iter().copied().filter(|bug| bug.is_in(version)).find_map(|bug| {
        let expected = machine.with(bug).expects(step);
        expected.agrees(answer).then_some((bug, expected))
    })
}

/// Returns the address that connect(2) has given a UDP socket.
fn new_address(live: &Live, step: &Step) -> Option<std::net::IpAddr> {
    matches!(step, Step::Narrow { .. } | Step::Widen { .. }).then(|| live.address(step.id()))
}
