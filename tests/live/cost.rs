//! What the programs cost a kernel that loads them.

use std::time::Instant;

use aya::programs::loaded_programs;
use portwatch_tests::{agent::Agent, kernel, say, turn::Turn};

/// Far below the kernel's limit of a million: a margin for a verifier that takes more steps
/// than any tested one.
const MOST_VERIFIED: u32 = 100_000;

/// For an agent that watches all processes, and for one that checks each failing task's
/// parents, whose programs are longer.
#[test]
fn the_verifier_has_little_to_do() {
    let _alone = Turn::alone();
    let start = Instant::now();
    let everybodys = Agent::start(&["run", "--format", "json"]).unwrap();
    let ready = start.elapsed();
    let descendants = Agent::start(&["exec", "--", "cat"]).unwrap();
    if let Ok(asked) = std::env::var("PORTWATCH_HOOKS") {
        assert_eq!(everybodys.hooks(), asked, "{}", everybodys.said());
    }
    // The kernel keeps 15 characters of a name.
    let programs = loaded_programs().map(Result::unwrap);
    let ours = programs.filter(|program| program.name().starts_with(b"pw_"));
    let verified = ours.filter_map(|program| {
        let name = program.name_as_str()?.to_owned();
        Some((program.verified_instruction_count()?, name))
    });
    let most = verified.max();
    drop((everybodys, descendants));
    let told = most
        .as_ref()
        .map_or(String::new(), |(count, name)| format!(" verified={count} program={name}"));
    say(&format!("measured: ready_ms={}{told}", ready.as_millis()));
    // The kernel reports them from 5.16 on.
    assert_eq!(most.is_some(), kernel::is_at_least(5, 16));
    assert!(most.is_none_or(|(count, _)| count < MOST_VERIFIED), "{told}");
}
