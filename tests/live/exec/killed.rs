//! If exec is killed, the command and its descendants are killed too, whatever their user.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use portwatch_tests::{netns::Netns, patience, process::Process, programs::installed, skip::skip};
use rustix::{
    pipe::pipe,
    process::{Pid, Signal, kill_process},
};

use super::{exec, start, to_its_end, wait_until_gone};

/// A command that prints its pid, then that of a child, of a grandchild in a session of its
/// own, and of one whose parent has exited.
const FAMILY: &str = "echo $$; sleep 600 >&- & echo $!; \
    setsid sh -c 'sleep 600 >&- & echo $!; wait' & \
    sh -c 'setsid sleep 600 >&- & echo $!'; wait";
const MEMBERS: usize = 4;

/// Returns the pids that it prints.
fn numbers(process: &Process, count: usize) -> Vec<u32> {
    let said = process.stdout.wait_until(patience(), |lines| {
        (lines.len() >= count)
            .then(|| lines.iter().map(|line| line.text.trim().parse().unwrap()).collect())
    });
    said.unwrap_or_else(|why| panic!("{why:?}\n{}", process.said()))
}

/// A field of /proc/PID/status.
fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

fn parent(pid: u32) -> Option<u32> {
    status(pid, "PPid")?.parse().ok()
}

/// The guardian of an exec, if it has one that is not `other`.
fn guardian_of(exec: u32, other: Option<u32>) -> Option<u32> {
    let all = fs::read_dir("/proc").unwrap();
    let mut pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.find(|&pid| {
        let is_it = || status(pid, "Name").as_deref() == Some("pw-guardian");
        parent(pid) == Some(exec) && Some(pid) != other && is_it()
    })
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// All of the process tree have exited after a SIGKILL to portwatch.
fn assert_taken_along(process: Process, family: &[u32]) {
    let exec = process.pid();
    wait_for("orphan", || {
        // The command itself comes first.
        family.iter().skip(1).any(|&pid| parent(pid) == Some(exec)).then_some(())
    });
    let guardian = guardian_of(exec, None).expect("there is a guardian");
    // The guardian is not told about orphans: it searches.
    std::thread::sleep(Duration::from_millis(600));
    process.signal(Signal::KILL);
    let ran = to_its_end(process);
    assert_eq!(ran.code, -9, "{}", ran.stderr);
    family.iter().chain([&guardian]).for_each(|&pid| wait_until_gone(pid));
}

#[test]
fn the_whole_family_of_the_same_user() {
    let process = start(&mut exec(&Netns::new(), &[], &["sh", "-c", FAMILY]));
    let family = numbers(&process, MEMBERS);
    assert_taken_along(process, &family);
}

/// The kernel's own mechanism (PR_SET_PDEATHSIG) ends where the user changes.
#[test]
fn the_whole_family_of_another_user() {
    let mut tried = 0;
    let user = &["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", FAMILY][..];
    for (program, arguments) in
        [("setpriv", user), ("runuser", &["-u", "nobody", "--", "sh", "-c", FAMILY])]
    {
        let Some(program) = installed(program) else { continue };
        tried += 1;
        let mut command = vec![program.to_str().unwrap()];
        command.extend(arguments);
        let process = start(&mut exec(&Netns::new(), &[], &command));
        let family = numbers(&process, MEMBERS);
        let uid = status(family[1], "Uid").unwrap();
        assert!(!uid.starts_with('0'), "it is still root's: {uid}");
        assert_taken_along(process, &family);
    }
    if tried == 0 {
        skip("exec_under_another_user", "neither setpriv(1) nor runuser(1)");
    }
}

/// At once, before any search: the command and its children.
#[test]
fn killed_at_once() {
    let script = "echo $$; sleep 600 >&- & echo $!; sh -c 'sleep 600 >&- & echo $!; wait' & wait";
    for _ in 0..5 {
        let process = start(&mut exec(&Netns::new(), &[], &["sh", "-c", script]));
        let family = numbers(&process, 3);
        process.signal(Signal::KILL);
        let _ran = to_its_end(process);
        family.into_iter().for_each(wait_until_gone);
    }
}

/// A killed guardian is replaced, and the command continues.
#[test]
fn a_guardian_that_is_killed_is_replaced() {
    let process = start(&mut exec(&Netns::new(), &[], &["sh", "-c", "echo $$; exec cat"]));
    let family = numbers(&process, 1);
    let first = guardian_of(process.pid(), None).unwrap();
    kill(first);
    let second = wait_for("second guardian", || guardian_of(process.pid(), Some(first)));
    assert!(parent(family[0]).is_some(), "the command is gone");
    process.signal(Signal::KILL);
    let _ran = to_its_end(process);
    family.into_iter().chain([second]).for_each(wait_until_gone);
}

/// It is neither in the command's process group nor in its session, takes no signal but
/// SIGKILL, has no descriptors of others open, and ends with the command.
#[test]
fn the_guardian_is_not_noticed() {
    // Not closed on exec: portwatch inherits it.
    let _inherited = pipe().unwrap();
    let mut process =
        start(&mut exec(&Netns::new(), &[], &["sh", "-c", "echo $$; read x; exit 9"]));
    let command = numbers(&process, 1)[0];
    let guardian = guardian_of(process.pid(), None).unwrap();
    assert_eq!(parent(command), Some(process.pid()));
    for field in ["NSpgid", "NSsid"] {
        let [its, commands] = [guardian, command].map(|pid| status(pid, field).unwrap());
        assert_ne!(its, commands, "{field}");
        assert_eq!(its, guardian.to_string(), "{field}");
    }
    let folder = format!("/proc/{guardian}/fd");
    wait_for("closed descriptors", || {
        let count = fs::read_dir(&folder).unwrap().count();
        (count == 3).then_some(())
    });
    let open = |fd: u32| fs::read_link(Path::new(&folder).join(fd.to_string())).unwrap();
    assert!(open(0).to_str().unwrap().starts_with("pipe:"), "{:?}", open(0));
    assert_eq!([open(1), open(2)].map(|path| path.display().to_string()), ["/dev/null"; 2]);
    let pid = Pid::from_raw(guardian.try_into().unwrap()).unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill_process(pid, signal).unwrap();
    }
    process.tell("");
    assert_eq!(to_its_end(process).code, 9);
    wait_until_gone(guardian);
}
