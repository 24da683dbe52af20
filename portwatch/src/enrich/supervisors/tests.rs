//! Supervisors of a fake host: a folder for /proc, and a service manager of the
//! test's own on the socket where systemd's would be.

use std::{fs, io, path::Path};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::evidence::{Protocol, Socket, State};

mod manager;
mod systemd;

fn host(root: &TempDir) -> Host {
    Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::Unsupported.into())))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(250)
}

/// A process in the fake /proc; its arguments stand between bars.
fn spawn(root: &TempDir, pid: u32, ppid: u32, comm: &str, argv: &str) -> Process {
    let folder = root.path().join("proc").join(pid.to_string());
    fs::create_dir_all(&folder).unwrap();
    let stat = format!(
        "{pid} ({comm}) S {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 900 0 0 0 0 0 0 0 0 0 0 0 0 \
         0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    fs::write(folder.join("stat"), stat).unwrap();
    fs::write(folder.join("cmdline"), argv.replace('|', "\0") + "\0").unwrap();
    belongs_to(root, pid, 0);
    Process {
        uid: Some(0),
        pid,
        ppid: Some(ppid),
        comm: Some(comm.to_owned()),
        ..Process::default()
    }
}

/// Gives a process to a user.
fn belongs_to(root: &TempDir, pid: u32, uid: u32) {
    let status = root.path().join("proc").join(pid.to_string()).join("status");
    fs::write(status, format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")).unwrap();
}

fn environment(root: &TempDir, pid: u32, variables: &str) {
    let file = root.path().join("proc").join(pid.to_string()).join("environ");
    fs::write(file, variables.replace('|', "\0")).unwrap();
}

/// The supervisor's kind, name and pid.
type Found = Option<(SupervisorKind, Option<String>, Option<u32>)>;

fn described(root: &TempDir, process: &Process) -> Found {
    let (mut process, mut gaps) = (process.clone(), Vec::new());
    // Other work on the machine is no reason for a gap.
    let deadline = Instant::now() + Duration::from_secs(20);
    Supervisors::default().describe(&host(root), &mut process, &[], deadline, &mut gaps);
    assert_eq!(gaps, []);
    process.supervisor.map(|found| (found.kind, found.name, found.pid))
}

fn found(kind: SupervisorKind, name: &str, pid: u32) -> Found {
    Some((kind, Some(name.to_owned()), Some(pid)))
}

#[test]
fn supervisord_calls_it_by_group_and_program() {
    let root = TempDir::new().unwrap();
    spawn(&root, 1, 0, "systemd", "/sbin/init");
    spawn(&root, 50, 1, "supervisord", "/usr/bin/python3|/usr/bin/supervisord|-n");
    spawn(&root, 60, 50, "sh", "/bin/sh|/opt/run.sh");
    let app = spawn(&root, 70, 60, "java", "java");
    environment(&root, 70, "A=b|SUPERVISOR_PROCESS_NAME=web|SUPERVISOR_GROUP_NAME=web");
    assert_eq!(described(&root, &app), found(SupervisorKind::Supervisord, "web", 50));
    environment(&root, 70, "SUPERVISOR_GROUP_NAME=site|SUPERVISOR_PROCESS_NAME=web_01");
    assert_eq!(described(&root, &app), found(SupervisorKind::Supervisord, "site:web_01", 50));
    environment(&root, 70, "XSUPERVISOR_PROCESS_NAME=web");
    assert_eq!(described(&root, &app), Some((SupervisorKind::Supervisord, None, Some(50))));
}

#[test]
fn supervisord_may_be_pid_1_and_stands_before_the_unit() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
    spawn(&root, 1, 0, "supervisord", "/usr/bin/python3|/usr/bin/supervisord");
    let app = spawn(&root, 70, 1, "java", "java");
    environment(&root, 70, "SUPERVISOR_PROCESS_NAME=web");
    let app = Process { unit: Some("supervisor.service".to_owned()), ..app };
    assert_eq!(described(&root, &app), found(SupervisorKind::Supervisord, "web", 1));
}

#[test]
fn pm2_runit_and_s6_are_found() {
    let root = TempDir::new().unwrap();
    spawn(&root, 40, 1, "PM2 v5.3.0: God", "PM2 v5.3.0: God Daemon (/root/.pm2)");
    let app = spawn(&root, 41, 40, "node", "node|/srv/app.js");
    environment(&root, 41, "pm_id=3|name=api");
    assert_eq!(described(&root, &app), found(SupervisorKind::Pm2, "api", 40));
    environment(&root, 41, "pm_id=3|name=");
    assert_eq!(described(&root, &app), found(SupervisorKind::Pm2, "3", 40));
    environment(&root, 41, "pm_id=3|name=all");
    assert_eq!(described(&root, &app), found(SupervisorKind::Pm2, "3", 40));

    spawn(&root, 80, 1, "runsv", "runsv|web");
    let app = spawn(&root, 81, 80, "nginx", "nginx");
    assert_eq!(described(&root, &app), found(SupervisorKind::Runit, "web", 80));

    spawn(&root, 90, 1, "s6-supervise", "s6-supervise|db");
    let app = spawn(&root, 91, 90, "postgres", "postgres");
    assert_eq!(described(&root, &app), Some((SupervisorKind::S6, None, Some(90))));
}

#[test]
fn the_folders_of_runit_and_s6_are_absolute() {
    for (kind, program) in [(SupervisorKind::Runit, "runsv"), (SupervisorKind::S6, "s6-supervise")]
    {
        let root = TempDir::new().unwrap();
        let app = spawn(&root, 81, 80, "nginx", "nginx");
        for (told, there, expected) in [
            ("web", "/etc/sv/web", Some("/etc/sv/web")),
            ("./web", "/etc/sv/web", Some("/etc/sv/web")),
            ("/srv/web", "/elsewhere", Some("/srv/web")),
            ("-x", "/gone (deleted)", None),
        ] {
            spawn(&root, 80, 1, program, &format!("{program}|{told}"));
            let cwd = root.path().join("proc/80/cwd");
            let _ = fs::remove_file(&cwd);
            std::os::unix::fs::symlink(there, cwd).unwrap();
            let expected = Some((kind, expected.map(str::to_owned), Some(80)));
            assert_eq!(described(&root, &app), expected, "{program} {told}");
        }
    }
}

/// A user's process can have any name and arguments.
#[test]
fn a_users_runsv_is_believed_about_its_own_folder_and_job_only() {
    use std::os::unix::fs::MetadataExt as _;
    let root = TempDir::new().unwrap();
    let service = root.path().join("home/web");
    fs::create_dir_all(service.join("supervise")).unwrap();
    let own = fs::metadata(&service).unwrap().uid();
    // The tests may run as root, whose processes are believed.
    let user = if own == 0 { 1000 } else { own };
    std::os::unix::fs::chown(&service, Some(user), None).unwrap();
    spawn(&root, 80, 1, "runsv", "runsv|/etc/service/sshd");
    belongs_to(&root, 80, user);
    std::os::unix::fs::symlink(&service, root.path().join("proc/80/cwd")).unwrap();
    spawn(&root, 81, 80, "sh", "sh|./run");
    let app = Process { uid: Some(user), ..spawn(&root, 82, 81, "nginx", "nginx") };
    let folder = service.to_str().unwrap().to_owned();
    for (written, expected) in [
        ("81\n", Some(folder.clone())),
        ("82", Some(folder)),
        ("83", None),
        ("", None),
        ("-1", None),
    ] {
        let file = service.join("supervise/pid");
        fs::write(&file, written).unwrap();
        std::os::unix::fs::chown(file, Some(user), None).unwrap();
        let mut app = app.clone();
        Supervisors::default().describe(&host(&root), &mut app, &[], soon(), &mut Vec::new());
        let found = app.supervisor.unwrap();
        assert_eq!((found.name, found.uid), (expected, Some(user)), "{written:?}");
    }
}

/// What a process writes into its environment must not end another's job, nor
/// all of them.
#[test]
fn only_a_name_that_stands_for_one_job_is_taken_over() {
    let root = TempDir::new().unwrap();
    spawn(&root, 50, 1, "supervisord", "supervisord");
    let app = spawn(&root, 70, 50, "java", "java");
    for hostile in ["", "all", "-h", "web *", "web:", "web:*", "*", "we\nb", "wéb"] {
        for variables in [
            format!("SUPERVISOR_PROCESS_NAME={hostile}"),
            format!("SUPERVISOR_PROCESS_NAME=web|SUPERVISOR_GROUP_NAME={hostile}"),
        ] {
            environment(&root, 70, &variables);
            let nameless = Some((SupervisorKind::Supervisord, None, Some(50)));
            assert_eq!(described(&root, &app), nameless, "{variables}");
        }
    }
}

#[test]
fn a_shells_loop_is_one_and_a_terminal_is_not() {
    let root = TempDir::new().unwrap();
    spawn(&root, 1, 0, "systemd", "/sbin/init");
    spawn(&root, 20, 1, "bash", "-bash");
    spawn(&root, 21, 20, "sh", "sh|-c|while :; do ./app; done");
    let app = spawn(&root, 22, 21, "app", "./app");
    let by_hand = spawn(&root, 23, 20, "app", "./app");
    let looped = found(SupervisorKind::Shell, "while :; do ./app; done", 21);
    assert_eq!(described(&root, &app), looped);
    assert_eq!(described(&root, &by_hand), None);
    // In a scope the loop starts it again; in a login session as well.
    fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
    let unit = |process: &Process, unit: &str, session: Option<&str>| Process {
        unit: Some(unit.to_owned()),
        session: session.map(str::to_owned),
        ..process.clone()
    };
    assert_eq!(described(&root, &unit(&app, "run-r1.scope", None)), looped);
    assert_eq!(described(&root, &unit(&app, "session-9.scope", Some("9"))), looped);
    assert_eq!(described(&root, &unit(&by_hand, "session-9.scope", Some("9"))), None);
    let scope = Some((SupervisorKind::Systemd, Some("run-r1.scope".to_owned()), None));
    assert_eq!(described(&root, &unit(&by_hand, "run-r1.scope", None)), scope);
}

/// A name is a user's own to give: it counts for that user's processes only.
#[test]
fn another_users_process_is_no_supervisor_by_its_name() {
    let root = TempDir::new().unwrap();
    spawn(&root, 50, 1, "supervisord", "/usr/bin/supervisord");
    let app = spawn(&root, 70, 50, "java", "java");
    environment(&root, 70, "SUPERVISOR_PROCESS_NAME=web");
    belongs_to(&root, 50, 1000);
    for (uid, expected) in [(0, None), (1001, None), (1000, Some(1000))] {
        let mut app = Process { uid: Some(uid), ..app.clone() };
        let mut supervisors = Supervisors::default();
        supervisors.describe(&host(&root), &mut app, &[], soon(), &mut Vec::new());
        assert_eq!(app.supervisor.and_then(|it| it.uid), expected, "of {uid}");
    }
}

/// A script with a server in it is not what starts it again, unless it was seen to be.
#[test]
fn a_shell_without_a_loop_is_only_a_parent() {
    let root = TempDir::new().unwrap();
    spawn(&root, 21, 1, "start.sh", "/bin/bash|/dev/fd/3");
    let app =
        Process { started: Some(host(&root).wall_clock(0)), ..spawn(&root, 22, 21, "a", "a") };
    assert_eq!(described(&root, &app), None);
    spawn(&root, 21, 1, "sh", "sh|-c|echo waiting for it; ./app; echo while");
    assert_eq!(described(&root, &app), None);
    let after = |before: &Process| {
        let mut app = app.clone();
        let mut supervisors = Supervisors::default();
        supervisors.describe(&host(&root), &mut app, &[before], soon(), &mut Vec::new());
        app.supervisor.and_then(|found| found.pid)
    };
    // The shell is of 9 s after the boot.
    let boot = host(&root);
    let before = |pid, ppid, seconds: u64| Process {
        pid,
        ppid: Some(ppid),
        started: Some(boot.wall_clock(seconds * 1_000_000_000)),
        ..Process::default()
    };
    assert_eq!(after(&before(12, 21, 10)), Some(21));
    assert_eq!(after(&before(22, 21, 10)), None, "the same process");
    assert_eq!(after(&before(12, 20, 10)), None, "a child of another");
    assert_eq!(after(&before(12, 21, 8)), None, "of an earlier process of that number");
}

#[test]
fn the_loop_of_a_script_is_looked_for_in_its_file() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("proc/21");
    spawn(&root, 21, 1, "loop.sh", "/bin/sh|./loop.sh");
    std::os::unix::fs::symlink(root.path(), folder.join("cwd")).unwrap();
    let app = spawn(&root, 22, 21, "app", "./app");
    fs::write(root.path().join("loop.sh"), "#!/bin/sh\nwhile :; do ./app; done\n").unwrap();
    assert_eq!(described(&root, &app), found(SupervisorKind::Shell, "./loop.sh", 21));
    fs::write(root.path().join("loop.sh"), "#!/bin/sh\n./app\necho done\n").unwrap();
    assert_eq!(described(&root, &app), None);
}

#[test]
fn without_systemd_or_in_a_container_a_unit_is_not_asked_about() {
    let root = TempDir::new().unwrap();
    let app = spawn(&root, 22, 1, "app", "./app");
    let app = Process { unit: Some("app.service".to_owned()), ..app };
    assert_eq!(described(&root, &app), None);
    fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
    assert_eq!(described(&root, &Process { container: Some("9f81".to_owned()), ..app }), None);
}

#[test]
fn parents_in_a_circle_and_long_names_have_an_end() {
    let root = TempDir::new().unwrap();
    spawn(&root, 30, 31, "a", "a");
    let app = spawn(&root, 31, 30, "b", "b");
    assert_eq!(described(&root, &app), None);
    spawn(&root, 30, 1, "runsv", &format!("runsv|{}", "ü".repeat(1000)));
    assert_eq!(described(&root, &app), found(SupervisorKind::Runit, &"ü".repeat(128), 30));
}

#[test]
fn a_search_without_time_is_a_gap() {
    let root = TempDir::new().unwrap();
    let mut app = spawn(&root, 31, 30, "app", "app");
    let (mut gaps, past) = (Vec::new(), Instant::now() - Duration::from_millis(1));
    let mut supervisors = Supervisors::default();
    supervisors.describe(&host(&root), &mut app, &[], past, &mut gaps);
    supervisors.describe(&host(&root), &mut app, &[], past, &mut gaps);
    assert_eq!(gaps.len(), 1, "once per event: {gaps:?}");
    assert_eq!(gaps[0].what, Fact::Supervisor);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut remembered = Remembered::default();
    for key in 0..1000 {
        remembered.remember(key, key);
    }
    assert_eq!(remembered.0.len(), MOST_REMEMBERED);
    assert_eq!((remembered.recall(&5), remembered.recall(&500)), (Some(5), None));
}

#[test]
fn the_processes_that_are_looked_into_are_bounded() {
    let root = TempDir::new().unwrap();
    spawn(&root, 80, 1, "runsv", "runsv|web");
    let failing = spawn(&root, 99, 80, "nginx", "nginx");
    let holders = (100..120).map(|pid| spawn(&root, pid, 80, "nginx", "nginx"));
    let mut socket = Socket::bare(State::Listen, "0.0.0.0:80".parse().unwrap(), None);
    socket.holders = holders.collect();
    let mut evidence = Evidence::refused(failing, vec![socket.clone(), socket]);
    Supervisors::default().describe_all(&host(&root), &mut evidence, soon());
    for socket in &evidence.sockets {
        let named = socket.holders.iter().filter(|holder| holder.supervisor.is_some()).count();
        assert_eq!(named, MOST_PROCESSES - 1, "the failing one is among them");
    }
    assert_eq!(evidence.gaps.len(), 1, "{:?}", evidence.gaps);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_in_proc_are_read(stat: Vec<u8>, comm: String, cmdline: Vec<u8>, environ: Vec<u8>) {
        let root = TempDir::new().unwrap();
        let mut app = spawn(&root, 31, 30, "app", "app");
        spawn(&root, 30, 29, &comm, "x");
        let file = |path: &str| root.path().join("proc").join(Path::new(path));
        fs::write(file("30/cmdline"), &cmdline).unwrap();
        fs::write(file("31/environ"), &environ).unwrap();
        fs::create_dir_all(file("29")).unwrap();
        fs::write(file("29/stat"), &stat).unwrap();
        let mut gaps = Vec::new();
        Supervisors::default().describe(&host(&root), &mut app, &[], soon(), &mut gaps);
        prop_assert_eq!(gaps, []);
    }
}
