//! At a terminal: Ctrl-C and Ctrl-Z go to the command, and the terminal stays as it was.

use std::process::Command;

use portwatch_tests::{
    op::tcp,
    patience,
    process::{Process, code},
    programs::portwatch,
    scene::Scene,
    terminal::{CTRL_C, CTRL_D, CTRL_Z, Terminal},
};
use rustix::process::Signal;

use super::{ADDRESS, EADDRINUSE, exec, start, taker};

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

/// The command gets it once, and alone decides its effect.
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
    // Once echoed, possibly before the end of `fg`'s output, and once by cat.
    let twice = terminal.screen.wait_until(patience(), |lines| {
        (lines.iter().filter(|line| line.text.trim().ends_with("hello")).count() == 2).then_some(())
    });
    twice.unwrap_or_else(|why| panic!("{why:?}\n{}", terminal.screen.text()));
    terminal.types(CTRL_D);
    wait_for(&terminal, "code 0");
    assert_eq!(code(process.wait_or_panic(patience())), 0);
}

/// Text at a terminal is in colour and fits its window.
#[test]
fn it_is_as_wide_as_the_window() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let terminal = Terminal::new();
    terminal.resize(72);
    let mut command = exec(&scene.netns, &[], &taker().each_ref().map(String::as_str));
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    terminal.confine(&mut command);
    let mut process = start(&mut command);
    assert_eq!(code(process.wait_or_panic(patience())), EADDRINUSE);
    wait_for(&terminal, &format!("kill {}", holder.pid()));
    let text = terminal.screen.text();
    let block = text.lines().skip_while(|line| !line.contains("EADDRINUSE")).map(plain);
    for line in block.take_while(|line| !line.contains("kill ")) {
        assert!(line.chars().count() <= 72 || !line.trim().contains(' '), "{line} in\n{text}");
    }
    assert!(text.contains("\u{1b}[1m"), "there is no colour in\n{text}");
}

/// A line without colours (ECMA-48, SGR) and without the carriage return.
fn plain(line: &str) -> String {
    let mut pieces = line.trim_end().split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |line, piece| line + piece.split_once('m').map_or(piece, |(_, rest)| rest))
}
