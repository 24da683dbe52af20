//! What is asked of systemd, and what becomes of each way to answer.

use std::os::unix::fs::MetadataExt as _;

use super::{
    manager::{Manner, Running},
    *,
};
use crate::evidence::ExitCode;

const PRIVATE: &str = "systemd/private";

fn own_uid(root: &TempDir) -> u32 {
    fs::metadata(root.path()).unwrap().uid()
}

fn web(owner: Option<u32>) -> Process {
    let unit = Some("web@1.service".to_owned());
    Process { pid: 70, unit, unit_owner: owner, ..Process::default() }
}

/// What is said of web@1.service, and the gaps.
fn ask(root: &TempDir, owner: Option<u32>) -> (Supervisor, Vec<Gap>) {
    let (mut process, mut gaps) = (web(owner), Vec::new());
    Supervisors::default().describe(&host(root), &mut process, &[], soon(), &mut gaps);
    (process.supervisor.unwrap(), gaps)
}

fn answered() -> Supervisor {
    Supervisor {
        restart: Some("on-failure".to_owned()),
        restarts: Some(7),
        main_pid: Some(0),
        control_pid: Some(71),
        state: Some("failed".to_owned()),
        result: Some("exit-code".to_owned()),
        exit_code: Some(ExitCode::Exited),
        exit_status: Some(98),
        ..unanswered()
    }
}

fn unanswered() -> Supervisor {
    Supervisor {
        name: Some("web@1.service".to_owned()),
        ..Supervisor::bare(SupervisorKind::Systemd)
    }
}

#[test]
fn systemd_says_whether_it_starts_the_service_again() {
    let root = TempDir::new().unwrap();
    let manager = Running::start(&root, PRIVATE, Manner::Answers);
    let host = host(&root);
    let mut supervisors = Supervisors::default();
    for _ in 0..3 {
        let (mut process, mut gaps) = (web(None), Vec::new());
        let began = Instant::now();
        supervisors.describe(&host, &mut process, &[], soon(), &mut gaps);
        println!("an answer took {:?}", began.elapsed());
        assert_eq!((process.supervisor, gaps), (Some(answered()), Vec::new()));
    }
    assert_eq!(manager.stop(), 1, "the answer is remembered");
}

/// The unit may have another main process by then.
#[test]
fn an_answer_from_before_a_process_names_no_processes() {
    let root = TempDir::new().unwrap();
    let manager = Running::start(&root, PRIVATE, Manner::Answers);
    let (host, mut supervisors, mut gaps) = (host(&root), Supervisors::default(), Vec::new());
    let before = Timestamp::now();
    let after = before + jiff::SignedDuration::from_hours(1);
    let policy =
        Supervisor { restart: Some("on-failure".to_owned()), restarts: Some(7), ..unanswered() };
    for (started, expected) in [(before, answered()), (after, policy), (before, answered())] {
        let mut process = Process { started: Some(started), ..web(None) };
        supervisors.describe(&host, &mut process, &[], soon(), &mut gaps);
        assert_eq!((process.supervisor, gaps.as_slice()), (Some(expected), &[][..]));
    }
    assert_eq!(manager.stop(), 1, "the answer is remembered");
}

#[test]
fn what_an_older_systemd_does_not_know_is_not_there() {
    let root = TempDir::new().unwrap();
    let _manager = Running::start(&root, PRIVATE, Manner::Answers);
    let (mut process, mut gaps) = (web(None), Vec::new());
    process.unit = Some("old.service".to_owned());
    Supervisors::default().describe(&host(&root), &mut process, &[], soon(), &mut gaps);
    let (name, restart) = (process.unit.clone(), Some("no".to_owned()));
    let expected = Supervisor { name, restart, ..unanswered() };
    assert_eq!((process.supervisor, gaps), (Some(expected), Vec::new()));
}

#[test]
fn a_users_manager_is_asked_about_the_users_unit() {
    let root = TempDir::new().unwrap();
    let uid = own_uid(&root);
    let _manager = Running::start(&root, &format!("user/{uid}/{PRIVATE}"), Manner::Answers);
    let (supervisor, gaps) = ask(&root, Some(uid));
    assert_eq!(gaps, []);
    assert_eq!(supervisor, Supervisor { pid: Some(std::process::id()), ..answered() });
}

#[test]
fn a_socket_in_a_users_folder_that_is_not_the_users_is_not_asked() {
    let root = TempDir::new().unwrap();
    let other = own_uid(&root) + 1;
    let manager = Running::start(&root, &format!("user/{other}/{PRIVATE}"), Manner::Answers);
    let (supervisor, gaps) = ask(&root, Some(other));
    assert_eq!(supervisor, unanswered());
    assert!(gaps[0].why.contains("not a socket of that user"), "{gaps:?}");
    // The user has made the socket, and somebody else listens on it.
    let path = root.path().join(format!("run/user/{other}/{PRIVATE}"));
    std::os::unix::fs::chown(path, Some(other), None).unwrap();
    let (supervisor, gaps) = ask(&root, Some(other));
    assert_eq!(supervisor, unanswered());
    assert!(gaps[0].why.contains("belongs to user"), "{gaps:?}");
    drop(manager);
}

#[test]
fn the_bus_is_asked_where_systemds_own_socket_hangs_up() {
    let root = TempDir::new().unwrap();
    let _own = Running::start(&root, PRIVATE, Manner::HangsUp);
    let _bus = Running::start(&root, "dbus/system_bus_socket", Manner::Answers);
    assert_eq!(ask(&root, None), (answered(), Vec::new()));
}

#[test]
fn a_unit_without_an_answer_is_named_with_a_gap() {
    for (manner, why) in [
        (Manner::HangsUp, "its own socket"),
        (Manner::SaysNothing, "deadline"),
        (Manner::Boasts, "data"),
    ] {
        let root = TempDir::new().unwrap();
        let manager = Running::start(&root, PRIVATE, manner);
        let (host, mut supervisors) = (host(&root), Supervisors::default());
        let mut gaps = Vec::new();
        let began = Instant::now();
        for unit in ["web@1.service", "api.service", "db.service"] {
            let mut process = Process { unit: Some(unit.to_owned()), ..web(None) };
            process.pid += unit.len() as u32;
            supervisors.describe(&host, &mut process, &[], soon(), &mut gaps);
            let named = Supervisor { name: Some(unit.to_owned()), ..unanswered() };
            assert_eq!(process.supervisor, Some(named));
        }
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        assert_eq!(gaps.len(), 1, "once per event: {gaps:?}");
        assert_eq!(gaps[0].what, Fact::Supervisor);
        assert!(gaps[0].why.contains(why), "{gaps:?}");
        assert_eq!(manager.stop(), 1, "not asked again for each unit");
    }
}

#[test]
fn a_unit_that_systemd_does_not_know_is_a_gap_of_its_own() {
    let root = TempDir::new().unwrap();
    let _manager = Running::start(&root, PRIVATE, Manner::Answers);
    let (host, mut supervisors) = (host(&root), Supervisors::default());
    let mut gaps = Vec::new();
    let mut stranger = Process { pid: 5, unit: Some("stranger.service".to_owned()), ..web(None) };
    supervisors.describe(&host, &mut stranger, &[], soon(), &mut gaps);
    assert_eq!(stranger.supervisor.unwrap().restart, None);
    assert_eq!(gaps.len(), 1);
    let mut process = web(None);
    supervisors.describe(&host, &mut process, &[], soon(), &mut gaps);
    assert_eq!(process.supervisor, Some(answered()));
}

#[test]
fn without_time_systemd_is_not_asked_and_asked_the_next_time() {
    let root = TempDir::new().unwrap();
    let _manager = Running::start(&root, PRIVATE, Manner::Answers);
    let (host, mut supervisors) = (host(&root), Supervisors::default());
    let (mut process, mut gaps) = (web(None), Vec::new());
    supervisors.describe(&host, &mut process, &[], Instant::now(), &mut gaps);
    assert_eq!((process.supervisor.as_ref(), gaps.len()), (Some(&unanswered()), 1));
    supervisors.describe(&host, &mut process, &[], soon(), &mut gaps);
    assert_eq!(process.supervisor, Some(answered()));
}

#[test]
fn systemd_booted_but_out_of_reach_is_a_gap() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
    let (supervisor, gaps) = ask(&root, None);
    assert_eq!(supervisor, unanswered());
    assert_eq!(gaps.len(), 1);
}

#[test]
fn the_socket_unit_is_named_where_systemd_holds_the_port() {
    let root = TempDir::new().unwrap();
    let manager = Running::start(&root, PRIVATE, Manner::Answers);
    let (host, mut supervisors) = (host(&root), Supervisors::default());
    let init = Process { pid: 1, unit: Some("init.scope".to_owned()), ..Process::default() };
    let held = |local: &str| {
        let mut socket = Socket::bare(State::Listen, local.parse().unwrap(), None);
        socket.holders = vec![init.clone()];
        socket
    };
    let failing = Process { pid: 9, ..Process::default() };
    let mut evidence = Evidence::refused(failing, vec![held("0.0.0.0:22"), held("0.0.0.0:23")]);
    supervisors.describe_all(&host, &mut evidence, soon());
    let units: Vec<_> =
        evidence.sockets.iter().map(|socket| socket.holders[0].unit.as_deref()).collect();
    assert_eq!((units, evidence.gaps), (vec![Some("ssh.socket"), Some("init.scope")], Vec::new()));
    let dns =
        supervisors.socket_unit(&host, "127.0.0.53:53".parse().unwrap(), Protocol::Udp, soon());
    assert_eq!(dns.unwrap(), Some("dns.socket".to_owned()));
    assert_eq!(manager.stop(), 1, "the list is remembered");
}

/// The one that listens there is the one that is in the way.
#[test]
fn a_refused_systemd_is_given_the_unit_that_failed() {
    let root = TempDir::new().unwrap();
    let _manager = Running::start(&root, PRIVATE, Manner::Answers);
    let (host, mut supervisors) = (host(&root), Supervisors::default());
    let init = Process { pid: 1, unit: Some("init.scope".to_owned()), ..Process::default() };
    let child = Process {
        pid: 9,
        comm: Some("(sd-listen)".to_owned()),
        unit: Some("web.socket".to_owned()),
        ..Process::default()
    };
    for (failing, unit) in [(init.clone(), "ssh-old.socket"), (child, "web.socket")] {
        let mut held = Socket::bare(State::Listen, "0.0.0.0:22".parse().unwrap(), None);
        held.holders = vec![init.clone()];
        let mut evidence = Evidence::refused(failing, vec![held]);
        evidence.failure.port = 22;
        supervisors.describe_all(&host, &mut evidence, soon());
        assert_eq!(evidence.process.unit.as_deref(), Some(unit));
        assert_eq!(evidence.sockets[0].holders[0].unit.as_deref(), Some("ssh.socket"));
    }
}

#[test]
fn no_socket_unit_without_systemd_and_an_error_without_an_answer() {
    let root = TempDir::new().unwrap();
    let (host, mut supervisors) = (host(&root), Supervisors::default());
    let local = "0.0.0.0:22".parse().unwrap();
    assert_eq!(supervisors.socket_unit(&host, local, Protocol::Tcp, soon()).unwrap(), None);
    let _manager = Running::start(&root, PRIVATE, Manner::SaysNothing);
    assert!(supervisors.socket_unit(&host, local, Protocol::Tcp, soon()).is_err());
}
