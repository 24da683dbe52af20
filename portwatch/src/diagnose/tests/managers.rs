//! Who is told to stop a process, and why a signal would not do.

use super::*;
use crate::evidence::{PortChoice, Runtime, Supervisor, SupervisorKind, Voucher};

/// The older release at `cgroup`, kept running by a supervisor.
fn kept_running(cgroup: &str, kind: SupervisorKind, name: &str) -> Process {
    let supervisor =
        Supervisor { name: Some(name.to_owned()), pid: Some(700), ..Supervisor::bare(kind) };
    Process { supervisor: Some(supervisor), ..java(38104, "2.4.1", cgroup, "2026-06-02T09:14:33Z") }
}

fn first_command(holder: Process) -> String {
    diagnose(&listener(holder)).moves[0].command.clone().unwrap()
}

#[test]
fn each_supervisor_is_told_in_its_own_words() {
    use SupervisorKind::{Pm2, Runit, S6, Shell, Supervisord, Systemd};
    // All but systemd run in a unit of their own, which would end all their jobs.
    for (kind, name, command) in [
        (Supervisord, "shop:web", "supervisorctl stop shop:web"),
        (Pm2, "web", "runuser -u deploy -- env PM2_HOME=/srv/pm2 pm2 stop web"),
        (Runit, "/etc/service/web", "sv down /etc/service/web"),
        (S6, "/run/service/my web", "s6-svc -d '/run/service/my web'"),
        (Systemd, "old.service", "systemctl stop old.service"),
        (Shell, "while :; do ./app; done", "systemctl stop old.service"),
    ] {
        let mut holder = kept_running("/system.slice/old.service", kind, name);
        let home = kind.spec().and_then(|spec| spec.home).map(|_| "/srv/pm2".to_owned());
        holder.supervisor.as_mut().unwrap().config = home;
        assert_eq!(first_command(holder), command, "{kind:?}");
    }
}

/// What a user's supervisor says is never run by root, whatever is known of the user. (The same
/// program of another user is another service: the first step has no command.)
#[test]
fn a_supervisor_of_a_user_without_a_name_is_told_as_that_user() {
    use SupervisorKind::{Pm2, Runit, S6, Supervisord};
    let as_number = "setpriv --reuid=100005 --regid=100005 --clear-groups --";
    for (kind, own) in [(Supervisord, true), (Runit, true), (S6, true), (Pm2, true), (Pm2, false)] {
        let mut holder = kept_running("/system.slice/old.service", kind, "web");
        (holder.uid, holder.user) = (Some(100_005), None);
        let supervisor = holder.supervisor.as_mut().unwrap();
        supervisor.uid = own.then_some(100_005);
        supervisor.config = Some("/tmp/evil".to_owned());
        let stop = |holder: &Process| {
            let moves = diagnose(&listener(holder.clone())).moves;
            moves.into_iter().find_map(|step| step.command).unwrap()
        };
        let command = stop(&holder);
        assert!(command.starts_with(as_number), "{kind:?}: {command}");
        // The name of another user, under whose id the job runs.
        holder.user = Some("anna".to_owned());
        holder.uid = Some(1000);
        let expected = if own { as_number } else { "runuser -u anna -- " };
        assert!(stop(&holder).starts_with(expected), "{kind:?}");
        // Nothing is known of it.
        (holder.uid, holder.user) = (None, None);
        holder.supervisor.as_mut().unwrap().uid = None;
        let moves = diagnose(&listener(holder)).moves;
        let mut commands = moves.iter().filter_map(|step| step.command.as_deref());
        assert!(kind != Pm2 || commands.all(|command| !command.contains("pm2")), "{moves:?}");
    }
}

#[test]
fn without_a_unit_the_loop_goes_before_what_it_starts() {
    let mut holder = kept_running("/", SupervisorKind::Shell, "./loop.sh");
    (holder.unit, holder.ppid) = (None, Some(700));
    // A script that has started it once starts nothing again.
    assert_eq!(first_command(holder.clone()), "kill 38104");
    let mut evidence = listener(holder.clone());
    let before = Process { pid: 38000, ..holder };
    evidence.previous_holder =
        Some(LastHolder { process: before, cookie: 1, ..LastHolder::default() });
    let command = |evidence: &Evidence| diagnose(evidence).moves[0].command.clone().unwrap();
    assert_eq!(command(&evidence), "kill 700 38104");
    // Its text says that it is a loop.
    let mut looping = Evidence { previous_holder: None, ..evidence.clone() };
    looping.sockets[0].holders[0].supervisor.as_mut().unwrap().loops = true;
    assert_eq!(command(&looping), "kill 700 38104");
    // It runs the failing program as well: one thing after the other.
    evidence.process.ancestors = vec![700];
    assert_eq!(command(&evidence), "kill 38104");
}

/// systemd has stopped the unit, and has left a process of it (KillMode=process).
#[test]
fn what_a_stopped_unit_has_left_is_not_ended_by_stopping_it() {
    for (state, command) in [
        ("active", "systemctl stop old.service"),
        ("inactive", "kill 38104"),
        ("failed", "kill 38104"),
    ] {
        let group = "/system.slice/old.service";
        let mut holder = kept_running(group, SupervisorKind::Systemd, "old.service");
        holder.supervisor.as_mut().unwrap().state = Some(state.to_owned());
        assert_eq!(first_command(holder), command, "{state}");
    }
}

#[test]
fn the_restart_policy_says_why_a_kill_would_not_do() {
    let mut holder =
        kept_running("/system.slice/old.service", SupervisorKind::Systemd, "old.service");
    let supervisor = holder.supervisor.as_mut().unwrap();
    (supervisor.restart, supervisor.restarts) = (Some("always".to_owned()), Some(3));
    let diagnosis = diagnose(&listener(holder));
    let why = &diagnosis.moves[0].why;
    assert!(why.contains("Restart=always it comes back (restarted 3 times already)"), "{why}");
    let judgement = diagnosis.judgement.unwrap();
    assert_eq!(judgement.safe_to_stop, SafeToStop::Check);
    assert!(judgement.contra[0].contains("stop the unit, not the process"), "{judgement:?}");
}

/// It was killed, and is back: another program than the failing one, too.
#[test]
fn what_has_just_followed_another_of_its_kind_was_started_again() {
    let back = |left: &str, restart: &str| {
        let mut holder =
            kept_running("/system.slice/nginx.service", SupervisorKind::Systemd, "nginx.service");
        holder.supervisor.as_mut().unwrap().restart = Some(restart.to_owned());
        holder.started = Some(at("2026-06-08T14:02:05Z"));
        (holder.comm, holder.exe) = (Some("nginx".to_owned()), Some("/usr/sbin/nginx".to_owned()));
        let before = Process { pid: 38000, ..holder.clone() };
        let mut evidence = listener(holder.clone());
        let last = |process, cookie, left: Option<&str>| {
            Some(LastHolder { process, cookie, left: left.map(at), ..LastHolder::default() })
        };
        evidence.last_holder = last(holder, 2, None);
        evidence.previous_holder = last(before, 1, Some(left));
        class(&evidence)
    };
    assert_eq!(back("2026-06-08T14:02:04Z", "always"), HolderClass::Restarted);
    assert_eq!(back("2026-06-08T13:00:00Z", "always"), HolderClass::OtherService, "long ago");
    assert_eq!(back("2026-06-08T14:02:04Z", "no"), HolderClass::OtherService, "by hand");
}

#[test]
fn systemd_is_told_by_the_name_of_the_socket_unit() {
    let mut systemd = java(1, "0", "/init.scope", "2026-06-01T00:00:00Z");
    (systemd.comm, systemd.unit) = (Some("systemd".to_owned()), Some("app.socket".to_owned()));
    let diagnosis = diagnose(&listener(systemd.clone()));
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::SocketUnit);
    assert_eq!(diagnosis.moves[0].command.as_deref(), Some("systemctl stop app.socket"));
    // systemd did not answer, and the control group of the child that bound it says the same.
    let mut evidence = listener(Process { unit: None, ..systemd.clone() });
    evidence.sockets[0].cookie = Some(7);
    let child = java(474, "0", "/system.slice/app.socket", "2026-06-01T00:00:00Z");
    let child = Process {
        comm: Some("(sd-listen)".to_owned()),
        vouched_by: Some(Voucher::Root),
        unit: Some("app.socket".to_owned()),
        ..child
    };
    evidence.last_holder = Some(LastHolder { process: child, cookie: 7, ..LastHolder::default() });
    let by_record = diagnose(&evidence).moves[0].command.clone();
    assert_eq!(by_record.as_deref(), Some("systemctl stop app.socket"));
    // Its service runs already, and has the socket open too.
    let mut evidence = listener(systemd.clone());
    let service = java(900, "0", "/system.slice/app.service", "2026-06-01T00:00:00Z");
    evidence.sockets[0].holders.push(service);
    let both = diagnose(&evidence).moves[0].command.clone();
    assert_eq!(both.as_deref(), Some("systemctl stop app.socket app.service"));
    // A user's manager has socket units of its own.
    systemd.pid = 900;
    systemd.unit_owner = Some(1004);
    let user = "systemctl --user --machine=deploy@ stop app.socket";
    assert_eq!(first_command(systemd.clone()), user);
    systemd.unit = Some("init.scope".to_owned());
    let list = "systemctl --user --machine=deploy@ list-sockets | grep -w 8080";
    assert_eq!(first_command(systemd), list);
}

/// ReusePort= in a socket unit, and a service of another user that binds the port itself.
#[test]
fn a_socket_unit_that_shares_its_port_is_to_pass_its_descriptor() {
    let systemd = Process {
        comm: Some("systemd".to_owned()),
        exe: Some("/usr/lib/systemd/systemd".to_owned()),
        cmdline: vec!["/sbin/init".to_owned()].into(),
        unit: Some("web.socket".to_owned()),
        uid: Some(0),
        ..java(1, "0", "/init.scope", "2026-06-01T00:00:00Z")
    };
    let mut evidence = listener(systemd);
    (evidence.sockets[0].reuseport, evidence.sockets[0].uid) = (Some(true), Some(0));
    evidence.failure.reuseport = Some(true);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.cause, Cause::ReuseportUid);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::SocketUnit);
    let [use_it, stop_it, ..] = &diagnosis.moves[..] else { panic!("{:?}", diagnosis.moves) };
    assert!(use_it.why.starts_with("use the descriptor that web.socket passes (LISTEN_FDS"));
    assert_eq!(stop_it.command.as_deref(), Some("systemctl stop web.socket"));
    // A program that only has systemd's name: the socket of root may still be a unit's.
    evidence.sockets[0].holders[0].vouched_by = Some(Voucher::Nobody);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.cause, Cause::ReuseportUid);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OtherService);
    let why = &diagnosis.moves[0].why;
    assert!(why.contains("for a .socket unit with ReusePort=, use the descriptor"), "{why}");
}

#[test]
fn the_option_is_told_in_the_programs_own_language() {
    use Runtime::{Dotnet, Go, Java, Native, Node, Perl, Php, Python, Ruby, Rust};
    for (runtime, part) in [
        (Python, "allow_reuse_address"),
        (Node, "reuseAddr: true"),
        (Java, "setReuseAddress(true)"),
        (Go, "syscall.SO_REUSEADDR"),
        (Rust, "set_reuse_address(true)"),
        (Ruby, ":REUSEADDR"),
        (Perl, "ReuseAddr => 1"),
        (Php, "socket_set_option"),
        (Dotnet, "SocketOptionName.ReuseAddress"),
        (Native, "setsockopt(fd, SOL_SOCKET, SO_REUSEADDR"),
    ] {
        let mut evidence = evidence(vec![socket(State::TimeWait, "10.0.4.12:8080", Vec::new())]);
        evidence.failure.reuseaddr = Some(false);
        evidence.process.runtime = Some(runtime);
        let why = diagnose(&evidence).moves[0].why.clone();
        assert!(why.contains(part), "{runtime:?}: {why}");
    }
}

#[test]
fn what_is_reserved_stays_reserved() {
    let client = java(900, "0", "/system.slice/batch.service", "2026-06-08T14:00:00Z");
    let mut row = socket(State::Established, "10.0.4.12:40000", vec![client]);
    row.remote = Some("10.0.9.1:5432".parse().unwrap());
    let mut evidence = evidence(vec![row]);
    evidence.failure.port = 40_000;
    let range = |reserved: &str| {
        Some(crate::evidence::Ephemeral {
            low: 32_768,
            high: 60_999,
            reserved: reserved.to_owned(),
            usage: None,
        })
    };
    evidence.ephemeral = range("8080,9000-9100");
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.cause, Cause::ClientPort);
    let reserve = "sysctl -w net.ipv4.ip_local_reserved_ports='8080,9000-9100,40000'";
    assert_eq!(diagnosis.moves[0].command.as_deref(), Some(reserve));
    // It was given away before it was reserved: there is nothing to add.
    evidence.ephemeral = range("39999-40001");
    let first = diagnose(&evidence).moves[0].command.clone();
    assert_eq!(first.as_deref(), Some("systemctl stop batch.service"));
}

#[test]
fn a_listener_that_asked_for_any_port_gets_another_one() {
    let holder = || java(900, "0", "/system.slice/batch.service", "2026-06-08T14:00:00Z");
    let chosen_by = |who| {
        let mut row = socket(State::Listen, "0.0.0.0:40000", vec![holder()]);
        row.port_chosen_by = who;
        let mut evidence = evidence(vec![row]);
        evidence.failure.port = 40_000;
        evidence.ephemeral = Some(crate::evidence::Ephemeral {
            low: 32_768,
            high: 60_999,
            reserved: String::new(),
            usage: None,
        });
        diagnose(&evidence)
    };
    let by_kernel = chosen_by(Some(PortChoice::Kernel));
    let commands: Vec<_> = by_kernel.moves.iter().map(|step| step.command.as_deref()).collect();
    let reserve = "sysctl -w net.ipv4.ip_local_reserved_ports=40000";
    assert_eq!(commands[..2], [Some(reserve), None]);
    assert!(by_kernel.moves[1].why.starts_with("then restart batch.service"));
    assert!(by_kernel.notes.iter().any(|note| note.contains("asked for any free port")));
    for who in [None, Some(PortChoice::Program)] {
        let first = chosen_by(who).moves[0].command.clone();
        assert_ne!(first.as_deref(), Some(reserve), "{who:?}");
    }
}

#[test]
fn a_newer_release_and_connections_in_use_speak_against_a_stop() {
    let newer = java(
        38104,
        "2.5.0",
        "/user.slice/user-1004.slice/session-91.scope",
        "2026-06-02T09:14:33Z",
    );
    let mut evidence = listener(newer);
    evidence.connections.established = 12;
    let judgement = diagnose(&evidence).judgement.unwrap();
    assert_eq!(judgement.safe_to_stop, SafeToStop::Check);
    assert!(judgement.contra.iter().any(|reason| reason.contains("newer app-2.5.0.jar")));
    assert!(judgement.contra.iter().any(|reason| reason.contains("12 established connections")));
}
