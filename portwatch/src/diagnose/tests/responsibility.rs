//! Who is responsible for a holder, by evidence: and that the first command ends no more than what
//! holds the port.

use super::*;
use crate::evidence::{Binder, ProcessState, Sigterm, Supervisor, SupervisorKind, Voucher};

/// nginx, as a unit's or somebody's.
pub fn nginx(pid: u32, cgroup: &str, unit: Option<&str>) -> Process {
    Process {
        pid,
        comm: Some("nginx".to_owned()),
        exe: Some("/usr/sbin/nginx".to_owned()),
        cmdline: vec!["nginx: master process /usr/sbin/nginx".to_owned()].into(),
        unit: unit.map(str::to_owned),
        uid: Some(0),
        user: Some("root".to_owned()),
        session: None,
        ..java(pid, "0", cgroup, "2026-06-01T00:00:00Z")
    }
}

/// nginx of nginx.service fails beside `holder`.
pub fn beside(holder: Process) -> Evidence {
    let mut evidence = listener(holder);
    evidence.process = Process {
        started: Some(at("2026-06-08T14:02:10Z")),
        ..nginx(52110, "/system.slice/nginx.service", Some("nginx.service"))
    };
    evidence.failure.uid = Some(0);
    evidence
}

pub fn first(evidence: &Evidence) -> (String, String) {
    let first = diagnose(evidence).moves.into_iter().next().unwrap();
    (first.command.unwrap_or_default(), first.why)
}

/// Every command that would end something.
pub fn ends(evidence: &Evidence) -> Vec<String> {
    let moves = diagnose(evidence).moves.into_iter();
    moves.filter(|step| step.risk != Risk::None).filter_map(|step| step.command).collect()
}

#[test]
fn what_a_launcher_started_is_ended_and_not_the_launcher() {
    for (unit, what) in [
        ("cron.service", "cron"),
        ("atd.service", "at"),
        ("ssh.service", "sshd"),
        ("actions.runner.acme.web-1.service", "a CI runner"),
        ("dbus.service", "D-Bus"),
        ("gnome-terminal-server.service", "a terminal"),
    ] {
        let evidence = beside(nginx(31550, &format!("/system.slice/{unit}"), Some(unit)));
        let diagnosis = diagnose(&evidence);
        assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OldInstance, "{unit}");
        let (command, why) = first(&evidence);
        assert_eq!(command, "kill 31550", "{unit}");
        assert!(
            why.contains(&format!("{what} started it, and {unit} is not its service")),
            "{why}"
        );
    }
}

#[test]
fn a_launcher_that_listens_itself_is_a_service() {
    let sshd = Process {
        comm: Some("sshd".to_owned()),
        exe: Some("/usr/sbin/sshd".to_owned()),
        cmdline: vec!["sshd: /usr/sbin/sshd -D [listener]".to_owned()].into(),
        ..nginx(700, "/system.slice/ssh.service", Some("ssh.service"))
    };
    assert_eq!(ends(&beside(sshd)), ["systemctl stop ssh.service"]);
    let mut jenkins = nginx(700, "/system.slice/jenkins.service", Some("jenkins.service"));
    let main = |pid| {
        let bare = Supervisor::bare(SupervisorKind::Systemd);
        Some(Supervisor { main_pid: Some(pid), name: Some("jenkins.service".to_owned()), ..bare })
    };
    jenkins.supervisor = main(700);
    assert_eq!(ends(&beside(jenkins.clone())), ["systemctl stop jenkins.service"]);
    jenkins.supervisor = main(600);
    assert_eq!(ends(&beside(jenkins)), ["kill 700"], "a build");
}

#[test]
fn a_scope_is_never_ended_for_one_process_in_it() {
    let user = "/user.slice/user-1000.slice/user@1000.service/app.slice";
    for unit in [
        "vte-spawn-0f7c2f3e-53d9-4f0e-8a7d-4a5a1c0e1234.scope",
        "app-gnome-code-31337.scope",
        "snap.code.code-11111111-2222-3333-4444-555555555555.scope",
        "tmux-spawn-0f7c2f3e-53d9-4f0e-8a7d-4a5a1c0e1234.scope",
        "run-r0f7c2f3e53d94f0e8a7d.scope",
        "app-firefox@3fa8c1.service",
    ] {
        let mut holder = nginx(31550, &format!("{user}/{unit}"), Some(unit));
        holder.unit_owner = Some(1000);
        let evidence = beside(holder);
        assert_eq!(class(&evidence), HolderClass::OldInstance, "{unit}");
        assert_eq!(first(&evidence).0, "kill 31550", "{unit}");
        assert_eq!(ends(&evidence), ["kill 31550"], "{unit}");
    }
    let machine = "machine-qemu\\x2d1\\x2dwin11.scope";
    let evidence = beside(nginx(31550, &format!("/machine.slice/{machine}"), Some(machine)));
    assert_eq!(ends(&evidence), [""; 0], "only its manager stops a machine");
    assert_eq!(class(&evidence), HolderClass::OtherService);
    let command = diagnose(&evidence).moves.into_iter().find_map(|step| step.command);
    assert_eq!(command.as_deref(), Some("virsh dominfo win11"));
}

#[test]
fn a_unit_is_not_stopped_for_a_process_beside_the_failing_one() {
    let mut left = nginx(31550, "/system.slice/nginx.service", Some("nginx.service"));
    let bare = Supervisor::bare(SupervisorKind::Systemd);
    left.supervisor =
        Some(Supervisor { name: Some("nginx.service".to_owned()), main_pid: Some(52110), ..bare });
    let (command, why) = first(&beside(left));
    assert_eq!(command, "kill 31550");
    assert!(why.contains("would stop the failing program too"), "{why}");
    assert!(why.contains("a leftover there: the main process is 52110"), "{why}");
}

#[test]
fn the_command_fits_what_the_process_does_with_the_signal() {
    let of = |state, sigterm| {
        let holder = Process { state, sigterm, ..nginx(31550, "/", None) };
        first(&beside(holder))
    };
    assert_eq!(of(None, None).0, "kill 31550");
    let (command, why) = of(Some(ProcessState::Stopped), Some(Sigterm::Default));
    assert_eq!(command, "kill 31550; kill -CONT 31550");
    assert!(why.contains("it is stopped"), "{why}");
    let stopped = Process { state: Some(ProcessState::Stopped), ..nginx(31550, "/", None) };
    let summary = diagnose(&beside(stopped)).summary;
    assert!(summary.contains("stopped"), "{summary}");
    assert_eq!(of(Some(ProcessState::Sleeping), Some(Sigterm::Ignored)).0, "kill -KILL 31550");
    let (command, _) = of(None, Some(Sigterm::Blocked));
    let waits = "kill 31550; sleep 5; kill -KILL 31550 2>/dev/null || :";
    assert_eq!(command, waits);
    assert!(of(Some(ProcessState::DiskSleep), None).1.contains("state D"));
}

#[test]
fn workers_without_a_master_are_ended_together() {
    let worker = |pid, ppid| Process { ppid: Some(ppid), ..nginx(pid, "/", None) };
    let of = |holders: Vec<Process>| {
        let mut evidence = beside(nginx(1, "/", None));
        evidence.sockets = vec![socket(State::Listen, "0.0.0.0:8080", holders)];
        assert_eq!(class(&evidence), HolderClass::OldInstance);
        first(&evidence).0
    };
    assert_eq!(of(vec![worker(11, 1), worker(12, 1), worker(13, 1)]), "kill 11 12 13");
    assert_eq!(of(vec![worker(11, 1), worker(12, 11), worker(13, 11)]), "kill 11", "a master");
    let parent = |sigterm| Process { sigterm: Some(sigterm), ..worker(11, 1) };
    assert_eq!(of(vec![parent(Sigterm::Caught), worker(12, 11)]), "kill 11", "a handler");
    assert_eq!(of(vec![parent(Sigterm::Default), worker(12, 11)]), "kill 11 12", "a reloader");
    let ignores = Process { sigterm: Some(Sigterm::Ignored), ..worker(12, 1) };
    assert_eq!(of(vec![worker(11, 1), ignores]), "kill 11; kill -KILL 12", "each its signal");
    let other = Process { uid: Some(33), ..worker(12, 1) };
    assert_eq!(of(vec![worker(11, 1), other]), "kill 11", "another user's");
}

#[test]
fn a_job_is_stopped_by_its_supervisor_and_what_it_left_then() {
    let mut holder = nginx(31550, "/system.slice/supervisor.service", Some("supervisor.service"));
    holder.ppid = Some(31540);
    let bare = Supervisor::bare(SupervisorKind::Supervisord);
    holder.supervisor = Some(Supervisor {
        name: Some("shop:web".to_owned()),
        pid: Some(700),
        config: Some("/etc/my supervisor.conf".to_owned()),
        ..bare
    });
    let stop = "supervisorctl -c '/etc/my supervisor.conf' stop shop:web";
    assert_eq!(ends(&beside(holder.clone())), [stop, "kill 31550"]);
    holder.ppid = Some(700);
    assert_eq!(ends(&beside(holder)), [stop]);
}

#[test]
fn a_process_that_was_sent_the_socket_is_not_to_blame() {
    let bus = Process {
        comm: Some("dbus-daemon".to_owned()),
        exe: Some("/usr/bin/dbus-daemon".to_owned()),
        cmdline: vec!["/usr/bin/dbus-daemon".to_owned(), "--system".to_owned()].into(),
        uid: Some(101),
        ..nginx(700, "/system.slice/dbus.service", Some("dbus.service"))
    };
    for alive in [true, false] {
        let mut evidence = beside(bus.clone());
        evidence.sockets[0].binder = Some(Binder {
            pid: 31550,
            comm: "evil".to_owned(),
            cmdline: vec!["/tmp/evil".to_owned()].into(),
            alive,
            uid: Some(1000),
            user: Some("mallory".to_owned()),
            started: Some(at("2026-06-08T13:00:00Z")),
            bound: None,
        });
        let diagnosis = diagnose(&evidence);
        assert_eq!(diagnosis.holder.unwrap().class, HolderClass::Received);
        assert_ne!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::Likely);
        assert!(diagnosis.moves[0].why.contains("evil[31550] of user mallory"), "{alive}");
        assert_eq!(diagnosis.moves[0].risk == Risk::None, alive);
        // By another start it is a later process of that number.
        evidence.sockets[0].binder.as_mut().unwrap().started = Some(at("2026-05-01T00:00:00Z"));
        assert_eq!(class(&evidence), HolderClass::Received, "another user's, all the same");
        evidence.sockets[0].binder.as_mut().unwrap().uid = Some(0);
        assert_ne!(class(&evidence), HolderClass::Received, "root's: inherited");
        // A process of root, which a container has too, binds long after both have started.
        evidence.sockets[0].binder.as_mut().unwrap().bound = Some(at("2026-06-08T13:00:00Z"));
        assert_eq!(class(&evidence), HolderClass::Received, "nobody has inherited it");
    }
}

#[test]
fn of_two_that_have_it_open_the_one_that_bound_it_is_spoken_of() {
    let (old, binder) = (nginx(700, "/", None), nginx(31550, "/", None));
    let binder = Process { started: Some(at("2026-06-08T13:00:00Z")), ..binder };
    let mut evidence = beside(old.clone());
    evidence.sockets = vec![socket(State::Listen, "0.0.0.0:8080", vec![old, binder.clone()])];
    let named = |evidence: &Evidence| diagnose(evidence).holder.unwrap().pid;
    assert_eq!(named(&evidence), Some(700), "the oldest, where nothing else is known");
    evidence.sockets[0].binder = Some(Binder {
        pid: 31550,
        comm: "nginx".to_owned(),
        cmdline: binder.cmdline,
        alive: true,
        uid: Some(0),
        user: None,
        started: binder.started,
        bound: None,
    });
    assert_eq!(named(&evidence), Some(31550));
}

#[test]
fn a_name_is_no_proof_between_users() {
    let mut holder = nginx(31550, "/", None);
    (holder.uid, holder.user) = (Some(1000), Some("mallory".to_owned()));
    holder.exe = Some("/usr/sbin/nginx (deleted)".to_owned());
    let diagnosis = diagnose(&beside(holder));
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OtherService);
    assert_ne!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::Likely);
}

#[test]
fn a_daemon_of_several_programs_is_never_ended() {
    for (comm, list) in [
        ("PM2 v5.3.0: God", "runuser -u deploy -- pm2 list"),
        ("supervisord", "runuser -u deploy -- supervisorctl status"),
        ("circusd", "circusctl listsockets"),
        ("xinetd", "grep -rnE '^service|port|disable' /etc/xinetd.conf /etc/xinetd.d"),
    ] {
        let mut holder = nginx(700, "/system.slice/x.service", Some("x.service"));
        (holder.comm, holder.uid) = (Some(comm.to_owned()), Some(1004));
        (holder.user, holder.vouched_by) = (Some("deploy".to_owned()), Some(Voucher::Root));
        let evidence = beside(holder);
        assert_eq!(class(&evidence), HolderClass::AppDaemon, "{comm}");
        assert_eq!(ends(&evidence), [""; 0], "{comm}");
        assert_eq!(first(&evidence).0, list);
    }
}

/// Then the directory is not in its title.
#[test]
fn a_title_that_is_cut_is_no_reason_to_ask_another_daemon() {
    let mut holder = nginx(700, "/system.slice/x.service", Some("x.service"));
    (holder.comm, holder.uid) = (Some("PM2 v7.0.4: God".to_owned()), Some(1004));
    (holder.user, holder.vouched_by) = (Some("deploy".to_owned()), Some(Voucher::Root));
    holder.cmdline = vec!["PM2 v7.0.4: God Daemon (/srv/shop/a/long/pa".to_owned()].into();
    let home = "\"$(tr '\\0' '\\n' < /proc/700/environ | sed -n 's/^PM2_HOME=//p')\"";
    let list = format!("runuser -u deploy -- env PM2_HOME={home} pm2 list");
    assert_eq!(first(&beside(holder)).0, list);
}

#[test]
fn in_one_session_somebody_works() {
    let session = "/user.slice/user-1004.slice/session-91.scope";
    let mut evidence = listener(java(31550, "2.4.0", session, "2026-06-01T00:00:00Z"));
    evidence.process = nginx(52110, session, Some("session-91.scope"));
    (evidence.process.session, evidence.process.uid) = (Some("91".to_owned()), Some(1004));
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::Check);
    assert!(diagnosis.moves[0].why.starts_with("look first"), "{:?}", diagnosis.moves);
}

#[test]
fn the_service_stays_where_something_else_started_its_program_again() {
    let mut evidence = beside(nginx(700, "/system.slice/nginx.service", Some("nginx.service")));
    evidence.process = nginx(52110, "/system.slice/cron.service", Some("cron.service"));
    let (command, why) = first(&evidence);
    assert_eq!(command, "");
    assert!(
        why.contains("it already runs as nginx.service, and cron started it once more"),
        "{why}"
    );
}

#[test]
fn a_port_of_the_command_line_beside_the_service() {
    let mut evidence = beside(nginx(700, "/system.slice/app.service", Some("app.service")));
    evidence.failure.port = 9010;
    evidence.process.cmdline =
        ["java", "-Dcom.sun.management.jmxremote.port=9010", "-jar", "stop.jar"]
            .map(str::to_owned)
            .to_vec()
            .into();
    assert_eq!(ends(&evidence), [""; 0]);
    assert!(first(&evidence).1.contains("-Dcom.sun"), "{}", first(&evidence).1);
}
