//! supervisord, root's and a user's.

use std::{fs, process::Command};

use portwatch_tests::{
    op::tcp,
    paste::{self, Pasted, Way},
    patience,
    process::Process,
    programs,
    scene::Scene,
    skip::skip,
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::{ADDRESS, ELSEWHERE, NAMELESS, NOBODY, Orphans, as_user, holder, server, servers};

/// A running supervisord.
struct Supervisord {
    process: Process,
    folder: TempDir,
}

/// Starts one with these sections, as this user; `None` if it is not installed.
fn start(test: &str, scene: &Scene, uid: u32, sections: &str) -> Option<Supervisord> {
    let Some(supervisord) = programs::installed("supervisord") else {
        skip("managers", &format!("{test} needs supervisord"));
        return None;
    };
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(uid), None).unwrap();
    let at = folder.path().display();
    let configuration = folder.path().join("web shop.conf");
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={at}/pid\n\
         [unix_http_server]\nfile={at}/socket\n[supervisorctl]\nserverurl=unix://{at}/socket\n\
         [rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n{sections}"
    );
    fs::write(&configuration, text).unwrap();
    let mut command = as_user(uid);
    command.arg(supervisord).arg("-c").arg(&configuration);
    scene.netns.confine(&mut command);
    let process = Process::start(&mut command, Signal::TERM).unwrap();
    Some(Supervisord { process, folder })
}

/// A program whose output is supervisord's.
fn program(kind: &str, command: &str, more: &str) -> String {
    format!(
        "[{kind}]\ncommand={command}\nstdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n{more}\n"
    )
}

#[test]
fn a_job_of_supervisord() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let sections = [
            program("program:web", &server(ADDRESS), "autorestart=true"),
            program("program:other", &server(ELSEWHERE), ""),
        ];
        let Some(daemon) = start("a_job_of_supervisord", &scene, 0, &sections.concat()) else {
            return;
        };
        servers(&daemon.process, 2);
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        Pasted::of(&scene, &event).by(way).frees(&[holder(&event)], tcp(ADDRESS).listening());
    }
}

/// One process of a group of several.
#[test]
fn a_job_of_a_group() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let numbered = "numprocs=2\nprocess_name=%(program_name)s_%(process_num)02d";
        let section = program("program:web", &server("127.0.0.1:808%(process_num)d"), numbered);
        let Some(daemon) = start("a_job_of_a_group", &scene, 0, &section) else { return };
        servers(&daemon.process, 2);
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        Pasted::of(&scene, &event).by(way).frees(&[holder(&event)], tcp(ADDRESS).listening());
    }
}

/// A shell that has not become the server: supervisord ends the shell only.
#[test]
fn what_a_job_has_started() {
    for way in Way::BOTH {
        let scene = Scene::new();
        let command = format!("sh -c '{}; true'", server(ADDRESS));
        let section = program("program:web", &command, "autorestart=true");
        let Some(daemon) = start("what_a_job_has_started", &scene, 0, &section) else { return };
        let orphans = Orphans(servers(&daemon.process, 1));
        let holder = orphans.0[0];
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        event.includes(&json!({
            "sockets": [{"holders": [{"supervisor": {"kind": "supervisord", "name": "web"}}]}],
            "diagnosis": {"holder": {"class": "old_instance", "pid": holder}},
        }));
        let shell = u32::try_from(event.number("/sockets/0/holders/0/ppid").unwrap()).unwrap();
        Pasted::of(&scene, &event)
            .by(way)
            .and_with_it([shell])
            .frees_by_two(&[holder], tcp(ADDRESS).listening());
    }
}

/// A user's own, which root's command would not find.
#[test]
fn a_job_of_a_users_supervisord() {
    for (way, uid) in Way::BOTH.into_iter().flat_map(|way| [(way, NOBODY), (way, NAMELESS)]) {
        let scene = Scene::new();
        let command = server(ADDRESS);
        // Root's pipe is not for a user to open by its name.
        let output = "stdout_logfile=%(here)s/output\nautorestart=true";
        let section = format!("[program:web]\ncommand={command}\n{output}\n");
        let test = "a_job_of_a_users_supervisord";
        let Some(daemon) = start(test, &scene, uid, &section) else { return };
        let mut tail = Command::new("tail");
        tail.args(["-n", "+1", "-F"]).arg(daemon.folder.path().join("output"));
        let holder = servers(&Process::start(&mut tail, Signal::KILL).unwrap(), 1)[0];
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        event.includes(&json!({"sockets": [{"holders": [{"supervisor": {"uid": uid}}]}]}));
        Pasted::of(&scene, &event).by(way).frees(&[holder], tcp(ADDRESS).listening());
    }
}

/// The daemon itself listens for a program, and is asked which.
#[test]
fn a_socket_of_supervisord() {
    let scene = Scene::new();
    let socket = format!("socket=tcp://{ADDRESS}");
    let sections = [
        program("fcgi-program:web", "sleep 1000", &socket),
        program("program:other", &server(ELSEWHERE), ""),
    ];
    for uid in [0, NOBODY] {
        let sections = if uid == 0 {
            sections.concat()
        } else {
            program("fcgi-program:web", "sleep 1000", &socket).replace("/dev/fd/1", "NONE")
        };
        let test = "a_socket_of_supervisord";
        let Some(daemon) = start(test, &scene, uid, &sections) else { return };
        let ready = daemon.process.stdout.wait_for_text(patience(), "spawned: 'web'");
        assert!(ready.is_ok(), "{}", daemon.process.said());
        let event = scene.event_of(&scene.helper().is_refused(tcp(ADDRESS)));
        event.includes(&json!({"diagnosis": {"holder": {"class": "app_daemon"}}}));
        assert_eq!(paste::endings(&event), [""; 0], "{event}");
        let list = paste::command(&event, 0);
        let shown = paste::show(&list);
        assert!(shown.contains("web "), "{shown}\n{event}");
        // The text says to stop the program.
        let _ = paste::run(&list.replace(" status", " stop web"));
        assert!(paste::is_alive(holder(&event)));
        scene.helper().succeeds([tcp(ADDRESS).reuseaddr().listening()]);
    }
}
