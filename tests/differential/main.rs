//! The conflict rules against the running kernel: random scenarios are played to
//! both, and the model must foresee how each bind and listen ends. What it says
//! of a refusal is then held against what an observer could have known.
//!
//! `PORTWATCH_SCENARIOS=100000` plays so many, `PORTWATCH_SEED=7` others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test and says where"
)]

mod bugs;
mod groups;
mod live;
mod machine;
mod scenario;
mod seen;
mod steps;
mod tally;

use std::{env, fmt::Write as _, thread, time::Instant};

use portwatch::conflict::Kernel;
use portwatch_tests::say;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::{
    bugs::{Bug, Version},
    live::Namespace,
    machine::{Answer, Expected, Machine},
    scenario::{Scenario, scenarios},
    steps::{Step, steps},
    tally::Tally,
};

const SCENARIOS: u32 = 10_000;

#[test]
fn the_model_foresees_the_kernel() {
    // The thread's namespace is its own, so no other test is in it.
    let played = thread::spawn(|| play(number("PORTWATCH_SCENARIOS").unwrap_or(SCENARIOS)));
    if let Err(mismatch) = played.join().unwrap() {
        panic!("{mismatch}");
    }
}

fn number(variable: &str) -> Option<u32> {
    env::var(variable).ok().map(|value| value.parse().unwrap())
}

fn play(scenarios_wanted: u32) -> Result<(), String> {
    let start = Instant::now();
    let version = bugs::version();
    let config = Config {
        cases: scenarios_wanted,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number("PORTWATCH_SEED").unwrap_or(1).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let (namespace, tally) =
        (std::cell::RefCell::new(None), std::cell::RefCell::new(Tally::default()));
    let result = runner.run(&scenarios(), |scenario| {
        let mut namespace = namespace.borrow_mut();
        let namespace: &mut Namespace = match &mut *namespace {
            Some(namespace) if Namespace::is_fresh(namespace) => namespace,
            other => other.insert(Namespace::enter()),
        };
        play_one(&scenario, namespace, version, &mut tally.borrow_mut())
            .map_err(TestCaseError::fail)
    });
    let tally = tally.into_inner();
    say(&format!(
        "{version:?}, {scenarios_wanted} scenarios in {:.1} s\n{tally}",
        start.elapsed().as_secs_f64()
    ));
    match result {
        Ok(()) => {
            tally.assert_not_vacuous(scenarios_wanted);
            Ok(())
        }
        Err(TestError::Fail(trace, scenario)) => Err(format!(
            "the model and the kernel differ on {version:?}\n{:?}\n{trace}",
            scenario.settings
        )),
        Err(TestError::Abort(reason)) => Err(reason.to_string()),
    }
}

/// Plays a scenario to both; the trace of it if they differ.
fn play_one(
    scenario: &Scenario,
    namespace: &mut Namespace,
    version: Version,
    tally: &mut Tally,
) -> Result<(), String> {
    let other_device = namespace.other_device;
    let mut live = namespace.begin(scenario.settings);
    let kernel = Kernel::of(&format!("{}.{}.{}", version.0, version.1, version.2));
    let mut machine = Machine::new(kernel, live.settings, other_device);
    let mut trace = String::new();
    let mut next = 1;
    for op in &scenario.ops {
        for step in steps(&machine, op, next) {
            next += usize::from(step.is_of_new());
            let expected = machine.expects(&step);
            let answer = live.takes(&step);
            match answer {
                Ok(()) => writeln!(trace, "  {step}"),
                Err(errno) => writeln!(trace, "  {step}: {errno}"),
            }
            .unwrap();
            let expected = if expected.agrees(answer) {
                expected
            } else {
                let excused = excuse(&machine, &step, version, answer);
                let (bug, expected) =
                    excused.ok_or_else(|| format!("{trace}  but expected: {expected}"))?;
                tally.excuses(bug);
                expected
            };
            tally.counts(&step, expected, machine.is_crowded());
            if let Expected::Refusal(by, clause) = expected {
                seen::check(kernel, &machine, &step, by, clause)
                    .map_err(|said| format!("{trace}  but judged: {said}"))?;
            }
            let address = matches!(step, Step::Narrow { .. } | Step::Widen { .. })
                .then(|| live.address(step.id()));
            machine.learns(&step, answer, address);
        }
    }
    Ok(())
}

/// The bug of this kernel by which it answers so, and what it makes of the step.
fn excuse(
    machine: &Machine,
    step: &Step,
    version: Version,
    answer: Answer,
) -> Option<(Bug, Expected)> {
    Bug::ALL.into_iter().filter(|bug| bug.is_in(version)).find_map(|bug| {
        let expected = machine.with(bug).expects(step);
        expected.agrees(answer).then_some((bug, expected))
    })
}
