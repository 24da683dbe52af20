//! Real servers that nobody manages, which have workers: one command ends all that keep the
//! socket open.

use std::{fs, path::Path, process::Command};

use portwatch_tests::{
    event::Event,
    op::tcp,
    paste::{self, Pasted, Way},
    patience,
    process::Process,
    programs::installed,
    scene::Scene,
    skip::skip,
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::{ADDRESS, Orphans, holder};

/// The processes that have the blocking socket open, and their parents of the same name.
fn holders(event: &Event) -> Vec<u32> {
    let holders = event.list("/sockets/0/holders").iter();
    holders.map(|holder| u32::try_from(holder["pid"].as_u64().unwrap()).unwrap()).collect()
}

/// A server that is ready, when it has printed a text so many times, is ended by the first
/// command, with its workers, and can be started again.
fn is_ended_with_its_workers(ready: (&str, usize), command: impl Fn(&Path) -> Command) {
    let (scene, folder) = (Scene::new(), TempDir::new().unwrap());
    let start = || {
        let mut command = command(folder.path());
        scene.netns.confine(&mut command);
        let server = Process::start(&mut command, Signal::TERM).unwrap();
        let (text, times) = ready;
        let is_ready = server.stderr.wait_until(patience(), |lines| {
            let ready = lines.iter().filter(|line| line.text.contains(text)).count();
            (ready >= times).then_some(())
        });
        assert!(is_ready.is_ok(), "the server is not ready\n{}", server.said());
        server
    };
    for way in Way::BOTH {
        let first = start();
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        Pasted::of(&scene, &event)
            .by(way)
            .and_with_it(holders(&event))
            .frees(&[first.pid(), holder(&event)], tcp(ADDRESS).listening());
    }
    let again = start();
    drop(again);
}

/// nginx with three workers of this user and group.
fn nginx(program: &Path, folder: &Path, user: &str) -> Command {
    let at = folder.display();
    let text = format!(
        "daemon off; user {user}; worker_processes 3; pid {at}/pid;\n\
         error_log stderr notice; events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
         fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
         server {{ listen {ADDRESS}; }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), text).unwrap();
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    command
}

/// The user and group that Debian's servers have in tests.
const NOBODYS: &str = "nobody nogroup";

/// What nginx prints when it starts a worker.
const WORKER: &str = "start worker process ";

#[test]
fn nginx_with_workers() {
    let Some(program) = installed("nginx") else {
        return skip("managers", "nginx is not installed");
    };
    is_ended_with_its_workers((WORKER, 3), |folder| nginx(&program, folder, NOBODYS));
}

/// Its master was killed: each worker has the socket open, and none ends the others.
#[test]
fn nginx_without_its_master() {
    let Some(program) = installed("nginx") else {
        return skip("managers", "nginx is not installed");
    };
    for (way, user) in Way::BOTH.into_iter().flat_map(|way| [(way, NOBODYS), (way, "root root")]) {
        let (scene, folder) = (Scene::new(), TempDir::new().unwrap());
        let mut command = nginx(&program, folder.path(), user);
        scene.netns.confine(&mut command);
        let mut server = Process::start(&mut command, Signal::TERM).unwrap();
        let workers = server.stderr.wait_until(patience(), |lines| {
            let started = lines.iter().filter_map(|line| line.text.split_once(WORKER));
            let workers: Vec<u32> =
                started.filter_map(|(_, pid)| pid.trim().parse().ok()).collect();
            (workers.len() == 3).then_some(workers)
        });
        let workers = Orphans(workers.unwrap());
        server.signal(Signal::KILL);
        server.wait_or_panic(patience());
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        if user != NOBODYS {
            ends_all(&scene, &mut command, &workers.0);
        }
        Pasted::of(&scene, &event).by(way).frees(&workers.0, tcp(ADDRESS).listening());
    }
}

/// Starts the server once more: it fails, and one command ends all these workers of the first.
#[track_caller]
fn ends_all(scene: &Scene, again: &mut Command, workers: &[u32]) {
    let second = Process::start(again, Signal::TERM).unwrap();
    let event = scene.agent.wait_for("the second", |event| event.pid == Some(second.pid()));
    event.is_explained().includes(&json!({"diagnosis": {"holder": {"class": "old_instance"}}}));
    let sorted = |mut pids: Vec<u32>| {
        pids.sort_unstable();
        pids
    };
    let workers = sorted(workers.to_vec());
    assert_eq!(sorted(holders(&event)), workers, "{event}");
    let command = paste::command(&event, 0);
    let ended = command.strip_prefix("kill ").unwrap_or_else(|| panic!("no kill\n{event}"));
    let ended = ended.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(sorted(ended), workers, "{event}");
}

#[test]
fn haproxy_with_a_master() {
    let Some(haproxy) = installed("haproxy") else {
        return skip("managers", "haproxy is not installed");
    };
    is_ended_with_its_workers(("Loading success", 1), |folder| {
        let text = format!(
            "global\n  maxconn 10\ndefaults\n  mode tcp\n  timeout client 1s\n  \
                 timeout connect 1s\n  timeout server 1s\nfrontend web\n  bind {ADDRESS}\n"
        );
        fs::write(folder.join("haproxy.cfg"), text).unwrap();
        let mut command = Command::new(&haproxy);
        command.args(["-W", "-db", "-f"]).arg(folder.join("haproxy.cfg"));
        command
    });
}

#[test]
fn gunicorn_with_workers() {
    let Some(gunicorn) = installed("gunicorn") else {
        return skip("managers", "gunicorn is not installed");
    };
    is_ended_with_its_workers(("Booting worker", 3), |folder| {
        fs::write(folder.join("app.py"), "def app(environ, start): pass\n").unwrap();
        let mut command = Command::new(&gunicorn);
        command.args(["--bind", ADDRESS, "--workers", "3", "app:app"]).current_dir(folder);
        command
    });
}
