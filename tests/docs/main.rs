//! Statements in documents are true.

#![allow(clippy::unwrap_used, reason = "a panic fails the test and says where")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use portwatch::{
    diagnose::{Cause, HolderClass},
    engines::{self, Names},
    roles::{self, Role},
    supervisors::SupervisorKind,
};
use portwatch_tests::forms;
use strum::VariantArray as _;

mod cli;
mod errors;
mod layers;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn diagnosis() -> String {
    fs::read_to_string(root().join("docs/diagnosis.md")).unwrap()
}

/// Returns the words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_tests_that_the_tables_name_are_there() {
    let text = diagnosis();
    let mut named = 0;
    for (module, test) in quoted(&text).filter_map(|word| word.rsplit_once("::")) {
        // Scenarios of the whole guest, live tests, and unit tests.
        let (folders, inside) = match module.strip_prefix("guest::") {
            Some(inside) => (&["tests/src/bin/guest"][..], inside),
            None => (&["tests/live", "portwatch/src"][..], module),
        };
        let file = inside.replace("::", "/") + ".rs";
        let mut paths = folders.iter().map(|folder| root().join(folder).join(&file));
        let path = paths.find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("no file of {module}"));
        let source = fs::read_to_string(path).unwrap();
        assert!(source.contains(&format!("fn {test}(")), "no test {module}::{test}");
        named += 1;
    }
    assert!(named > 40, "{named} tests are named");
}

#[test]
fn every_cause_and_class_stands_in_the_tables() {
    let text = diagnosis();
    let causes = Cause::VARIANTS.iter().map(<&str>::from);
    for name in causes.chain(HolderClass::VARIANTS.iter().map(<&str>::from)) {
        assert!(text.contains(&format!("| `{name}` |")), "{name} has no row");
    }
}

/// The commands that come from data. Those that do not are in events, of which each is checked.
#[test]
fn every_command_of_data_stands_in_the_table() {
    let mut commands = Vec::new();
    for spec in SupervisorKind::VARIANTS.iter().filter_map(|kind| kind.spec()) {
        let (program, verb) = spec.stop;
        let config = spec.config.first().map(|option| format!(" {option} /etc/x"));
        let home = spec.home.map(|(variable, _)| format!("env {variable}=/x "));
        commands.push(format!("{program} {verb} web"));
        commands.push(format!(
            "{}{program}{} {verb} web",
            home.unwrap_or_default(),
            config.unwrap_or_default()
        ));
    }
    let filled = |text: &str| text.replace("{uid}", "1000").replace("{user}", "anna");
    for engine in engines::all() {
        let spec = engine.spec();
        let stop = spec.whole.map_or(spec.stop, |(show, _)| show);
        // The helper of Incus says nothing of its instance.
        if spec.whole.is_some() || spec.names != Names::Nobody {
            commands.push(format!("{stop} web"));
        }
        commands.extend(spec.users_stop.iter().map(|stop| format!("{} web", filled(stop))));
        commands.extend(spec.users_list.iter().map(|list| filled(list)));
        commands.push(spec.listing(80, "tcp"));
    }
    for name in ["PM2 v6", "supervisord", "circusd", "xinetd", "inetd"] {
        let Some(Role::AppDaemon(daemon)) = roles::claim(name).map(|claim| claim.role) else {
            panic!("{name} is no daemon of programs");
        };
        let (program, rest) = daemon.list;
        commands.push(format!("{program} {rest}"));
    }
    for command in commands {
        assert!(forms::is_known(&command), "no row in docs/diagnosis.md for: {command}");
    }
}

/// docs/security.md: each test that a statement names exists. The last part of a path is its
/// function.
#[test]
fn the_tests_that_security_names_are_there() {
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let files = ["tests", "portwatch/src", "portwatch-common/src"];
    let files = files.into_iter().flat_map(|folder| sources(&root().join(folder)));
    let sources: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut named = 0;
    for word in quoted(&text) {
        let is_test = word.contains("::") || word.matches('_').count() > 3;
        let Some(name) = word.rsplit("::").next().filter(|_| is_test) else { continue };
        assert!(sources.contains(&format!("fn {name}(")), "no test {word}");
        named += 1;
    }
    assert!(named > 10, "{named} tests are named");
}

/// Returns every source file below a directory.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}
