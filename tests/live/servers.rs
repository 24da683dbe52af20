//! Real servers, started twice on one port.

use std::{
    fs,
    path::Path,
    process::{Command, ExitStatus},
    sync::Arc,
};

use portwatch_tests::{
    event::Event,
    patience,
    process::{Process, code},
    programs::installed,
    scene::Scene,
    skip::skip,
    stream::Stream,
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

/// A server that is ready, and one that failed to start.
struct Twice {
    first: Process,
    second_pid: u32,
    second_status: ExitStatus,
    scene: Scene,
    _folders: [TempDir; 2],
}

/// Starts `command` twice, each in a directory of its own, the second when the first prints
/// `ready` on its log stream.
fn start_twice(
    talk: fn(&Process) -> &Stream,
    ready: &str,
    command: impl Fn(&Path) -> Command,
) -> Twice {
    let scene = Scene::new();
    let start = |folder: &TempDir| {
        let mut command = command(folder.path());
        scene.netns.confine(&mut command);
        // TERM, so that a master process ends its workers.
        Process::start(&mut command, Signal::TERM).unwrap()
    };
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let first = start(&folders[0]);
    let served = talk(&first).wait_for_text(patience(), ready);
    assert!(served.is_ok(), "the first server is not ready\n{}", first.said());
    let mut second = start(&folders[1]);
    let second_status = second.wait_or_panic(patience());
    Twice { second_pid: second.pid(), second_status, first, scene, _folders: folders }
}

/// A server may try several times: every attempt must be reported.
fn first_event(twice: &Twice, attempts: u64) -> Arc<Event> {
    let netns = &twice.scene.netns;
    twice.scene.agent.wait_until("the second server", patience(), |log| {
        (log.told_in(netns) >= attempts).then_some(())
    });
    let is_ours = |event: &Event| event.pid == Some(twice.second_pid);
    let event = twice.scene.agent.wait_for("the second server", is_ours);
    event.is_explained().includes(&json!({
        "netns": {"inode": twice.scene.netns.inode, "host": false},
        "process": {"ppid": std::process::id()},
        "diagnosis": {
            "cause": "listener",
            "holder": {"class": "old_instance", "pid": twice.first.pid()},
        },
    }));
    event
}

#[test]
fn nginx_started_twice() {
    let Some(nginx) = installed("nginx") else {
        return skip("nginx_started_twice", "nginx is not installed");
    };
    let twice = start_twice(
        |p| &p.stderr,
        "start worker process",
        |folder| {
            let configuration = folder.join("nginx.conf");
            let at = folder.display();
            fs::write(
                &configuration,
                format!(
                    "daemon off; user root; worker_processes 1; pid {at}/pid;\n\
                 error_log stderr notice; events {{}}\n\
                 http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
                 fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
                 server {{ listen 127.0.0.1:8080; }} }}\n"
                ),
            )
            .unwrap();
            let mut command = Command::new(&nginx);
            command.arg("-p").arg(folder).arg("-c").arg(configuration).args(["-e", "stderr"]);
            command
        },
    );
    assert_eq!(code(twice.second_status), 1);

    // It tries five times, half a second apart.
    first_event(&twice, 5).includes(&json!({
        "failure": {"address": "127.0.0.1", "port": 8080, "reuseaddr": true},
        "process": {"comm": "nginx", "exe": nginx},
        "diagnosis": {"holder": {"comm": "nginx"}},
    }));
}

#[test]
fn redis_started_twice() {
    let Some(redis) = installed("redis-server") else {
        return skip("redis_started_twice", "redis-server is not installed");
    };
    let twice = start_twice(
        |p| &p.stdout,
        "Ready to accept connections",
        |folder| {
            let configuration = folder.join("redis.conf");
            let at = folder.display();
            fs::write(&configuration, format!("bind 127.0.0.1\nport 6379\nsave \"\"\ndir {at}\n"))
                .unwrap();
            let mut command = Command::new(&redis);
            command.arg(configuration);
            command
        },
    );
    assert_eq!(code(twice.second_status), 1);

    first_event(&twice, 1).includes(&json!({
        "failure": {"address": "127.0.0.1", "port": 6379, "reuseaddr": true},
        "process": {"comm": "redis-server"},
    }));
}
