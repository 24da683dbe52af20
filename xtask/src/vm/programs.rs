//! The programs that run in a guest, linked statically because it has no
//! libraries.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{checked, cross::Target};

/// Where the programs are.
pub struct Programs {
    pub portwatch: PathBuf,
    pub binder: PathBuf,
    pub guest: PathBuf,
    pub server: PathBuf,
    pub busybox: PathBuf,
}

/// The paths of the suites, and of the benchmark of their cost.
pub struct Tests {
    pub live: PathBuf,
    pub differential: PathBuf,
    pub overhead: PathBuf,
}

/// Builds the programs.
pub fn build_programs(target: &Target) -> anyhow::Result<Programs> {
    checked(
        static_cargo(target, &["build", "--bins"])
            .args(["-p", "portwatch", "-p", "portwatch-tests"]),
    )?;
    let folder = target.programs("debug");
    let program = |name| folder.join(name);
    Ok(Programs {
        portwatch: program("portwatch"),
        binder: program("binder"),
        guest: program("guest"),
        server: program("server"),
        busybox: target.busybox(),
    })
}

/// Builds the suites.
pub fn build_tests(target: &Target) -> anyhow::Result<Tests> {
    let output = static_cargo(target, &["test", "--no-run", "--message-format=json"])
        .args(["-p", "portwatch-tests", "--test", "live", "--test", "differential"])
        .args(["--bench", "overhead"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the tests do not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let test = |name| {
        executable(&messages, name)
            .with_context(|| format!("cargo names no executable for the {name} test"))
    };
    Ok(Tests {
        live: test("live")?,
        differential: test("differential")?,
        overhead: test("overhead")?,
    })
}

fn static_cargo(target: &Target, verb: &[&str]) -> Command {
    let mut command = target.cargo(verb);
    command
        // What judges documents and schemas stays on the host.
        .arg("--no-default-features")
        // Emulation is slow and the guest's memory small.
        .args(["--config", "profile.dev.opt-level=1", "--config", "profile.dev.strip=true"])
        .args(["--config", "profile.dev.debug=false"]);
    command
}

/// The executable of a test in cargo's messages.
fn executable(messages: &str, test: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_test = message.pointer("/profile/test")?.as_bool()?;
        let is_named = message.pointer("/target/name")?.as_str()? == test;
        (is_test && is_named).then(|| message.get("executable")?.as_str().map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_executable_is_found_among_the_messages() {
        let messages = concat!(
            r#"{"profile":{"test":false},"target":{"name":"live"},"executable":"/a/binder"}"#,
            "\n",
            r#"{"profile":{"test":true},"target":{"name":"other"},"executable":"/a/other-1"}"#,
            "\n",
            r#"{"profile":{"test":true},"target":{"name":"live"},"executable":"/a/live-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "live"), Some(PathBuf::from("/a/live-1")));
        assert_eq!(executable(messages, "cli"), None);
    }
}
