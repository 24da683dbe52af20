//! runit and s6, which scan a directory of services.

use std::{fs, os::unix::fs::chown};

use portwatch_tests::{
    op::tcp,
    paste::{Pasted, Way},
    process::Process,
    programs,
    scene::Scene,
    skip::skip,
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    ADDRESS, ELSEWHERE, NAMELESS, NOBODY, Orphans, as_user, holder, server, servers, write_program,
};

/// A scanner of services, which ends with all of them.
struct Tree {
    scanner: Process,
    /// What ends the services too.
    end: Signal,
    folder: TempDir,
}

impl Tree {
    /// Starts the scanner with a service for each command; `None` if it is not installed.
    fn start(
        test: &str,
        scene: &Scene,
        (scanner, uid): (&str, u32),
        commands: &[(&str, String)],
    ) -> Option<Self> {
        let Some(program) = programs::installed(scanner) else {
            skip("managers", &format!("{test} needs {scanner}"));
            return None;
        };
        let folder = TempDir::new().unwrap();
        for (name, command) in commands {
            let service = folder.path().join(name);
            fs::create_dir(&service).unwrap();
            // A pipe that it opens itself for both ends never ends.
            let run = format!("#!/bin/sh\nmkfifo input\nexec 0<>input\n{command}\n");
            write_program(&service.join("run"), &run);
            chown(&service, Some(uid), Some(uid)).unwrap();
        }
        chown(folder.path(), Some(uid), Some(uid)).unwrap();
        let end = if scanner == "runsvdir" { Signal::HUP } else { Signal::TERM };
        let mut command = as_user(uid);
        command.arg(program).arg(folder.path());
        scene.netns.confine(&mut command);
        let scanner = Process::start(&mut command, end).unwrap();
        Some(Self { scanner, end, folder })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.scanner.signal(self.end);
        self.scanner.wait(portwatch_tests::patience());
    }
}

/// One of two services is stopped by its supervisor, which goes on.
fn a_service(test: &str, scanner: (&str, u32), way: Way) {
    let scene = Scene::new();
    let commands = [
        ("web shop", format!("exec {}", server(ADDRESS))),
        ("other", format!("exec {}", server(ELSEWHERE))),
    ];
    let Some(tree) = Tree::start(test, &scene, scanner, &commands) else { return };
    servers(&tree.scanner, 2);
    let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    let path = tree.folder.path().join("web shop");
    // Another user's program is rather left alone.
    let advice = usize::from(scanner.1 != 0);
    assert!(event.advice(advice).contains(path.to_str().unwrap()), "{event}");
    Pasted::of(&scene, &event).by(way).frees(&[holder(&event)], tcp(ADDRESS).listening());
}

/// The server is not the process that the supervisor has started, and does not end with it.
fn what_a_service_has_started(test: &str, scanner: (&str, u32), way: Way) {
    let scene = Scene::new();
    let commands = [("web", format!("{}\ntrue", server(ADDRESS)))];
    let Some(tree) = Tree::start(test, &scene, scanner, &commands) else { return };
    let _orphans = Orphans(servers(&tree.scanner, 1));
    let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
    let shell = u32::try_from(event.number("/sockets/0/holders/0/ppid").unwrap()).unwrap();
    Pasted::of(&scene, &event)
        .by(way)
        .and_with_it([shell])
        .frees_by_two(&[holder(&event)], tcp(ADDRESS).listening());
}

#[test]
fn a_service_of_runit() {
    for way in Way::BOTH {
        a_service("a_service_of_runit", ("runsvdir", 0), way);
    }
}

#[test]
fn what_a_service_of_runit_has_started() {
    for way in Way::BOTH {
        what_a_service_has_started("what_a_service_of_runit_has_started", ("runsvdir", 0), way);
    }
}

#[test]
fn a_service_of_s6() {
    for way in Way::BOTH {
        a_service("a_service_of_s6", ("s6-svscan", 0), way);
    }
}

#[test]
fn what_a_service_of_s6_has_started() {
    for way in Way::BOTH {
        what_a_service_has_started("what_a_service_of_s6_has_started", ("s6-svscan", 0), way);
    }
}

/// Root's command would find root's own services.
#[test]
fn a_service_of_a_users_runit() {
    for (way, uid) in Way::BOTH.into_iter().zip([NOBODY, NAMELESS]) {
        a_service("a_service_of_a_users_runit", ("runsvdir", uid), way);
    }
}

#[test]
fn a_service_of_a_users_s6() {
    for (way, uid) in Way::BOTH.into_iter().zip([NAMELESS, NOBODY]) {
        a_service("a_service_of_a_users_s6", ("s6-svscan", uid), way);
    }
}
