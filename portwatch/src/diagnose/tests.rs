//! Whole diagnoses as snapshots, from fixture evidence.

use insta::assert_json_snapshot;
use jiff::Timestamp;

use super::*;
use crate::evidence::{
    Cgroup, Connections, Fact, Failure, Family, Gap, LastHolder, Netns, Process, Protocol, Runtime,
    Socket, Stage, State, Subject, TimeWait,
};

mod any;
mod managers;
mod reports;
mod responsibility;
mod workloads;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// app-2.4.2 of app.service fails to bind 0.0.0.0:8080 with SO_REUSEADDR: the
/// failing half of the article's worked example.
fn evidence(sockets: Vec<Socket>) -> Evidence {
    Evidence {
        kernel: "6.12.0".to_owned(),
        subject: Subject::Failed,
        time: at("2026-06-08T14:02:11Z"),
        failure: Failure {
            stage: Stage::Bind,
            errno: "EADDRINUSE".to_owned(),
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
            address: "0.0.0.0".parse().unwrap(),
            port: 8080,
            device: None,
            reuseaddr: Some(true),
            reuseport: Some(false),
            v6only: None,
            uid: Some(1004),
            cookie: Some(1),
        },
        process: java(52110, "2.4.2", "/system.slice/app.service", "2026-06-08T14:02:10Z"),
        netns: Netns {
            inode: Some(4026531840),
            cookie: Some(1),
            host: Some(true),
            ..Netns::default()
        },
        sockets,
        time_wait: TimeWait::default(),
        connections: Connections::default(),
        ephemeral: None,
        last_holder: None,
        previous_holder: None,
        gaps: Vec::new(),
    }
}

fn java(pid: u32, version: &str, cgroup: &str, started: &str) -> Process {
    let last = cgroup.rsplit('/').next().unwrap();
    Process {
        pid,
        ppid: Some(1),
        comm: Some("java".to_owned()),
        exe: Some("/usr/lib/jvm/java-17/bin/java".to_owned()),
        runtime: Some(Runtime::Java),
        cmdline: ["java", "-jar", &format!("/opt/app/app-{version}.jar")]
            .map(str::to_owned)
            .to_vec()
            .into(),
        uid: Some(1004),
        user: Some("deploy".to_owned()),
        started: Some(at(started)),
        cgroup: Some(Cgroup { id: Some(9), path: Some(cgroup.to_owned()) }),
        unit: Some(last.to_owned()),
        session: last
            .strip_prefix("session-")
            .and_then(|rest| rest.strip_suffix(".scope"))
            .map(str::to_owned),
        ..Process::default()
    }
}

fn socket(state: State, local: &str, holders: Vec<Process>) -> Socket {
    let of_process = state != State::TimeWait;
    Socket {
        inode: of_process.then_some(798112),
        uid: Some(1004),
        expires_ms: (!of_process).then_some(41_000),
        holders: holders.into_iter().map(|holder| Process { fd: Some(89), ..holder }).collect(),
        ..Socket::bare(state, local.parse().unwrap(), Some(2))
    }
}

fn listener(holder: Process) -> Evidence {
    evidence(vec![socket(State::Listen, "0.0.0.0:8080", vec![holder])])
}

fn class(evidence: &Evidence) -> HolderClass {
    diagnose(evidence).holder.unwrap().class
}

#[test]
fn the_worked_example_is_a_squatter() {
    let squatter = java(
        31550,
        "2.4.0",
        "/user.slice/user-1004.slice/session-91.scope",
        "2026-06-01T22:40:09Z",
    );
    assert_json_snapshot!(diagnose(&listener(squatter)));
}

#[test]
fn the_older_release_in_the_same_unit_is_an_old_instance() {
    let old = java(38104, "2.4.1", "/system.slice/app.service", "2026-06-02T09:14:33Z");
    assert_json_snapshot!(diagnose(&listener(old)));
}

#[test]
fn the_older_release_under_another_unit_is_an_old_instance() {
    let old = java(38104, "2.4.1", "/system.slice/app-blue.service", "2026-06-02T09:14:33Z");
    let diagnosis = diagnose(&listener(old));
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::OldInstance);
    assert_eq!(diagnosis.moves[0].command.as_deref(), Some("systemctl stop app-blue.service"));
}

#[test]
fn a_younger_one_of_the_same_unit_was_restarted() {
    let young = java(52200, "2.4.1", "/system.slice/app.service", "2026-06-08T14:02:11Z");
    assert_eq!(class(&listener(young)), HolderClass::Restarted);
}

#[test]
fn another_unit_is_another_service() {
    let mut nginx = java(700, "0", "/system.slice/nginx.service", "2026-06-01T00:00:00Z");
    nginx.comm = Some("nginx".to_owned());
    nginx.exe = Some("/usr/sbin/nginx".to_owned());
    nginx.cmdline = vec!["nginx: master process".to_owned()].into();
    assert_json_snapshot!(diagnose(&listener(nginx)));
}

#[test]
fn the_process_itself() {
    let mut evidence =
        listener(java(52110, "2.4.2", "/system.slice/app.service", "2026-06-08T14:02:10Z"));
    assert_json_snapshot!(diagnose(&evidence));
    evidence.sockets[0].holders[0].pid = 52000;
    evidence.process.ancestors = vec![52000];
    assert_eq!(class(&evidence), HolderClass::Itself, "a parent of it");
}

#[test]
fn a_proxy_is_not_the_culprit() {
    let mut proxy = java(2219, "0", "/system.slice/docker.service", "2026-06-01T00:00:00Z");
    (proxy.comm, proxy.uid) = (Some("docker-proxy".to_owned()), Some(0));
    let diagnosis = diagnose(&listener(proxy));
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::ContainerProxy);
    let command = diagnosis.moves[0].command.as_deref().unwrap();
    // Nobody has said which container it is, and two may have published it.
    assert_eq!(command, "docker ps --filter publish=8080/tcp");
    assert_eq!(diagnosis.moves[0].risk, Risk::None);
}

#[test]
fn units_of_a_user_manager_are_stopped_there() {
    let mut old = java(
        900,
        "2.4.1",
        "/user.slice/user-1004.slice/user@1004.service/app.slice/app.service",
        "2026-06-02T09:14:33Z",
    );
    old.unit_owner = Some(1004);
    let diagnosis = diagnose(&listener(old));
    assert_eq!(
        diagnosis.moves[0].command.as_deref(),
        Some("systemctl --user --machine=deploy@ stop app.service")
    );
}

#[test]
fn time_wait_and_the_program_lacks_reuseaddr() {
    let mut evidence = evidence(vec![socket(State::TimeWait, "10.0.4.12:8080", Vec::new())]);
    evidence.time_wait.count = 3;
    evidence.time_wait.max_remaining_ms = Some(41_000);
    evidence.failure.reuseaddr = Some(false);
    assert_json_snapshot!(diagnose(&evidence));
}

#[test]
fn time_wait_and_the_old_sockets_lacked_reuseaddr() {
    let mut evidence = evidence(vec![socket(State::TimeWait, "10.0.4.12:8080", Vec::new())]);
    evidence.time_wait.count = 1;
    evidence.time_wait.max_remaining_ms = Some(1_200);
    assert_json_snapshot!(diagnose(&evidence));
}

#[test]
fn a_listener_explains_more_than_time_wait_beside_it() {
    let mut evidence =
        listener(java(38104, "2.4.1", "/system.slice/app.service", "2026-06-02T09:14:33Z"));
    evidence.sockets.insert(0, socket(State::TimeWait, "10.0.4.12:8080", Vec::new()));
    evidence.time_wait.count = 1;
    assert_eq!(diagnose(&evidence).cause, Cause::Listener);
}

#[test]
fn bound_and_never_listening() {
    let holder = java(38104, "2.4.1", "/", "2026-06-02T09:14:33Z");
    let mut evidence = evidence(vec![socket(
        State::Bound,
        "0.0.0.0:8080",
        vec![Process { unit: None, ..holder }],
    )]);
    evidence.process.unit = None;
    assert_json_snapshot!(diagnose(&evidence));
}

/// The first process of a container has the parent 0.
#[test]
fn where_nobody_has_tried_no_holder_is_itself() {
    let holder = Process { pid: 1, ppid: Some(0), ..java(1, "2.4.1", "/", "2026-06-02T09:14:33Z") };
    let mut evidence = listener(holder);
    evidence.process = Process::default();
    evidence.subject = Subject::Asked;
    let holder = diagnose(&evidence).holder.unwrap();
    assert_ne!(holder.class, HolderClass::Itself);
}

#[test]
fn at_listen_the_failing_socket_is_not_its_own_culprit() {
    let mut evidence =
        listener(java(38104, "2.4.1", "/system.slice/app.service", "2026-06-02T09:14:33Z"));
    evidence.failure.stage = Stage::Listen;
    let own = Socket { cookie: Some(1), ..socket(State::Bound, "0.0.0.0:8080", Vec::new()) };
    evidence.sockets.push(own);
    let diagnosis = diagnose(&evidence);
    assert_eq!((diagnosis.cause, diagnosis.refused_by.len()), (Cause::ListenRace, 1));
}

#[test]
fn nothing_there_is_gone_and_nothing_seen_is_not_guessed_at() {
    let mut empty = evidence(Vec::new());
    assert_json_snapshot!(diagnose(&empty));
    empty.gaps.push(Gap::new(Fact::Sockets, "the namespace could not be entered"));
    let diagnosis = diagnose(&empty);
    assert_eq!(diagnosis.cause, Cause::Undetermined);
    assert!(diagnosis.notes[0].contains("could not be entered"));
}

#[test]
fn who_is_gone_is_known_from_the_record() {
    let mut empty = evidence(Vec::new());
    let last = |left: Option<&str>| {
        Some(LastHolder {
            process: java(38104, "2.4.1", "/system.slice/app.service", "2026-06-02T09:14:33Z"),
            cookie: 3,
            bound: Some(at("2026-06-02T09:14:34Z")),
            left: left.map(at),
            ..LastHolder::default()
        })
    };
    empty.last_holder = last(Some("2026-06-08T14:02:11.040Z"));
    let diagnosis = diagnose(&empty);
    assert_eq!(diagnosis.cause, Cause::Gone);
    assert_eq!(diagnosis.holder.unwrap().pid, Some(38104));
    assert!(
        diagnosis
            .summary
            .ends_with("an older instance, had the port open and closed it 40 ms later")
    );
    // The failing process had the port by another of its sockets: a retry would fail too.
    empty.last_holder.as_mut().unwrap().process.pid = 52110;
    let diagnosis = diagnose(&empty);
    assert_eq!(diagnosis.cause, Cause::Gone);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::Itself);
    assert!(diagnosis.moves[0].why.starts_with("remove one of the two addresses"));
    assert!(diagnosis.moves.iter().all(|step| !step.why.contains("try again")));
    // It had closed long before, so it was not the one that blocked the bind.
    empty.last_holder = last(Some("2026-06-08T14:00:00Z"));
    assert_eq!(diagnose(&empty).holder, None);
}

#[test]
fn a_listener_that_nobody_can_name_is_still_named_as_a_socket() {
    let diagnosis = diagnose(&evidence(vec![socket(State::Listen, "0.0.0.0:8080", Vec::new())]));
    assert_eq!(diagnosis.cause, Cause::Listener);
    let holds = "an unidentified process is listening on 0.0.0.0:8080";
    assert!(diagnosis.summary.contains(holds), "{}", diagnosis.summary);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::Unknown);
    assert_eq!(diagnosis.confidence, Confidence::Undetermined);
    assert_eq!(diagnosis.refused_by[0].socket, "LISTEN 0.0.0.0:8080 (inode 798112)");
}

#[test]
fn hostile_names_cannot_leave_the_quotes() {
    let mut old = java(38104, "2.4.1", "/x", "2026-06-02T09:14:33Z");
    old.unit = Some("app;reboot.service".to_owned());
    let diagnosis = diagnose(&listener(old));
    let command = diagnosis
        .moves
        .iter()
        .find_map(|step| step.command.as_deref().filter(|command| command.contains("reboot")))
        .unwrap();
    assert_eq!(command, "systemctl stop 'app;reboot.service'");
}

/// What a command has in it is seen, and means to a shell what the unit is called.
#[test]
fn hostile_names_are_the_same_to_a_shell() {
    let command = |unit: &str| {
        let mut old = java(38104, "2.4.1", "/x", "2026-06-02T09:14:33Z");
        old.unit = Some(unit.to_owned());
        diagnose(&listener(old)).moves.into_iter().find_map(|step| step.command)
    };
    for name in [
        "a\u{1b}[2Jb", "a\nreboot\n", "'\u{7}\\n\u{9}'", "a\u{202e}b\u{e0041}", "ü\u{1}7", "\u{7f}",
    ] {
        let unit = format!("{name}.service");
        let command = command(&unit).unwrap();
        assert!(!command.chars().any(char::is_control), "{command:?}");
        assert!(command.chars().all(crate::text::sanitize::is_harmless), "{command:?}");
        let script = command.replace("systemctl stop ", "printf %s ");
        let bash = std::process::Command::new("bash").args(["-c", &script]).output();
        let said = bash.expect("bash is there").stdout;
        assert_eq!(String::from_utf8(said).unwrap(), unit, "{command}");
    }
    // No shell has an argument with a NUL in it.
    let nul = command("a\0b.service").unwrap_or_default();
    assert!(!nul.contains('\0') && !nul.contains("stop"), "{nul:?}");
}

#[test]
fn a_listing_shows_the_protocol() {
    let list = |protocol| crate::diagnose::words::listing(protocol, 8080);
    assert_eq!(list(Protocol::Sctp), "ss -Sanp 'sport = :8080'");
    assert_eq!(list(Protocol::Udplite), "grep -hs ':1F90 ' /proc/net/udplite /proc/net/udplite6");
}

#[test]
fn a_summary_stays_under_200_characters() {
    let mut old = java(38104, "2.4.1", "/x", "2026-06-02T09:14:33Z");
    old.unit = Some("ü".repeat(400));
    assert!(diagnose(&listener(old)).summary.chars().count() < 200);
}

/// A proxy holds sockets of a namespace that it does not live in.
#[test]
fn only_who_lives_there_leads_into_a_namespace() {
    let mut evidence =
        listener(java(900, "2.4.1", "/system.slice/app.service", "2026-06-02T09:14:33Z"));
    evidence.netns.host = Some(false);
    let enter = |evidence: &Evidence| moves::enter(&case::Case::new(evidence));
    assert_eq!(enter(&evidence).as_deref(), Some("nsenter -t 900 -n "));
    // It has exited, and another process there is known.
    evidence.sockets[0].holders[0].ended = true;
    evidence.netns.pid = Some(901);
    assert_eq!(enter(&evidence).as_deref(), Some("nsenter -t 901 -n "));
    evidence.sockets[0].holders[0].ended = false;
    evidence.netns.pid = None;
    evidence.sockets[0].holders[0].netns = Some(7);
    assert_eq!(enter(&evidence).as_deref(), Some("nsenter -t 52110 -n "));
    evidence.process.netns = Some(8);
    assert_eq!(enter(&evidence), None);
    evidence.process = Process::default();
    evidence.subject = Subject::Asked;
    assert_eq!(enter(&evidence), None, "asked about another namespace");
    evidence.netns.host = None;
    assert_eq!(enter(&evidence), None, "not known which it is");
}
