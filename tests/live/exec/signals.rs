//! Signals that are sent to exec.

use portwatch_tests::{netns::Netns, patience, process::Process};
use rustix::process::Signal;

use super::{exec, start, to_its_end, wait_until_gone};

/// A shell that prints each signal that it gets, and then exits.
fn listener(netns: &Netns, name: &str) -> Process {
    let script = format!(
        "trap 'echo got {name}; kill $!; exit 3' {name}; sleep 600 >/dev/null & echo up; wait"
    );
    let process = start(&mut exec(netns, &[], &["sh", "-c", &script]));
    process.stdout.wait_for_text(patience(), "up").unwrap();
    process
}

#[test]
fn they_reach_the_command() {
    let netns = Netns::new();
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::ALARM, "ALRM"),
    ] {
        let process = listener(&netns, name);
        process.signal(signal);
        let ran = to_its_end(process);
        assert_eq!((ran.code, ran.stdout), (3, format!("up\ngot {name}\n")), "{}", ran.stderr);
    }
}

/// A signal without a handler ends it, and then exec.
#[test]
fn a_signal_that_ends_it() {
    let process = start(&mut exec(&Netns::new(), &[], &["sh", "-c", "echo up; exec cat"]));
    process.stdout.wait_for_text(patience(), "up").unwrap();
    process.signal(Signal::TERM);
    assert_eq!(to_its_end(process).code, 128 + 15);
}

/// A signal that is ignored by its parent is ignored in it (nohup).
#[test]
fn one_that_is_ignored_stays_ignored() {
    let netns = Netns::new();
    let mut command = exec(&netns, &[], &["sh", "-c", "echo up; read x; exit 4"]);
    let exec = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(exec).args(arguments);
    let mut process = start(&mut command);
    process.stdout.wait_for_text(patience(), "up").unwrap();
    process.signal(Signal::HUP);
    process.tell("");
    assert_eq!(to_its_end(process).code, 4);
}

/// What a command sends to its own process group does not return to it.
#[test]
fn what_it_sends_to_its_group_comes_once() {
    let script = "trap 'echo got' USR1; kill -USR1 0; read x; exit 5";
    // A group of its own: the harness is in the other one.
    let mut command = exec(&Netns::new(), &[], &["sh", "-c", script]);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut process = start(&mut command);
    process.stdout.wait_for_text(patience(), "got").unwrap();
    // The signal was read before this one, which is passed on.
    process.signal(Signal::WINCH);
    process.tell("");
    let ran = to_its_end(process);
    assert_eq!((ran.code, ran.stdout.as_str()), (5, "got\n"), "{}", ran.stderr);
}

/// A user who kills exec means the command.
#[test]
fn killed_it_takes_the_command_along() {
    let process = start(&mut exec(&Netns::new(), &[], &["sh", "-c", "echo $$; exec cat"]));
    let pid = process.stdout.wait_until(patience(), |lines| lines.first()?.text.parse().ok());
    process.signal(Signal::KILL);
    let ran = to_its_end(process);
    assert_eq!(ran.code, -9);
    wait_until_gone(pid.unwrap());
}
