//! At a terminal: Ctrl-C and Ctrl-Z mean the command, and leave the terminal as it
//! was.

use std::process::Command;

use portwatch_tests::{
    patience,
    process::{Process, code},
    programs::portwatch,
    terminal::{CTRL_C, CTRL_D, CTRL_Z, Terminal},
};
use rustix::process::Signal;

/// A shell at the terminal, with `$0` for portwatch.
fn shell(terminal: &Terminal, script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(portwatch().unwrap());
    terminal.confine(&mut command);
    Process::start(&mut command, Signal::KILL).unwrap()
}

fn wait_for(terminal: &Terminal, text: &str) {
    let found = terminal.screen.wait_for_text(patience(), text);
    found.unwrap_or_else(|why| panic!("no {text} ({why:?})\n{}", terminal.screen.text()));
}

/// The command gets it once, and it alone says what comes of it.
#[test]
fn ctrl_c_is_the_commands() {
    let mut terminal = Terminal::new();
    let before = format!("{:?}", terminal.settings());
    let script = "trap : INT; \"$0\" exec -- \
                  sh -c 'trap \"echo got it\" INT; echo up; while ! read x; do :; done; exit 9'; \
                  echo code $?; read x";
    let process = shell(&terminal, script);
    wait_for(&terminal, "up");
    let foreground = terminal.foreground();
    terminal.types(CTRL_C);
    wait_for(&terminal, "got it");
    terminal.types("\n");
    wait_for(&terminal, "code 9");
    let times = terminal.screen.text().matches("got it").count();
    assert_eq!(times, 1, "{}", terminal.screen.text());
    assert_eq!(format!("{:?}", terminal.settings()), before);
    assert_eq!(terminal.foreground(), foreground);
    drop(process);
}

#[test]
fn ctrl_c_ends_a_command_that_lets_it() {
    let mut terminal = Terminal::new();
    let before = format!("{:?}", terminal.settings());
    let script = "trap : INT; \"$0\" exec -- sh -c 'echo pid $$; exec cat'; echo code $?; read x";
    let process = shell(&terminal, script);
    let pid = terminal.screen.wait_until(patience(), |lines| {
        lines.iter().find_map(|line| line.text.trim().strip_prefix("pid ")?.parse().ok())
    });
    terminal.types(CTRL_C);
    wait_for(&terminal, "code 130");
    super::wait_until_gone(pid.unwrap());
    assert_eq!(format!("{:?}", terminal.settings()), before);
    drop(process);
}

#[test]
fn ctrl_z_stops_both_and_they_go_on() {
    let mut terminal = Terminal::new();
    let script = "set -m; \"$0\" exec -- sh -c 'echo up; exec cat'; \
                  echo stopped $?; fg; echo code $?";
    let mut process = shell(&terminal, script);
    wait_for(&terminal, "up");
    terminal.types(CTRL_Z);
    wait_for(&terminal, "stopped 148");
    terminal.types("hello\n");
    // Once as it is typed, and once by cat.
    let twice = terminal.screen.wait_until(patience(), |lines| {
        (lines.iter().filter(|line| line.text.trim() == "hello").count() == 2).then_some(())
    });
    twice.unwrap_or_else(|why| panic!("{why:?}\n{}", terminal.screen.text()));
    terminal.types(CTRL_D);
    wait_for(&terminal, "code 0");
    assert_eq!(code(process.wait_or_panic(patience())), 0);
}
