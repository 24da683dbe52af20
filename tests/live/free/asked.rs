//! A person is asked, at a terminal.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    command::portwatch,
    helper::{Helper, Holder},
    netns::Netns,
    op::{Op, tcp},
    paste::is_alive,
    patience,
    process::{Process, code},
    skip::in_guest,
    terminal::{CTRL_C, Terminal},
};
use rustix::process::{Signal, kill_process};

use super::{ADDRESS, pid};

/// `portwatch free` at a terminal, after it has shown its plan.
struct Dialogue {
    terminal: Terminal,
    process: Process,
    holder: Holder,
}

impl Dialogue {
    fn start(netns: &Netns) -> Self {
        Self::about(Helper::new(netns).holds([tcp(ADDRESS).listening()]), netns)
    }

    fn about(holder: Holder, netns: &Netns) -> Self {
        let terminal = Terminal::new();
        let mut command = portwatch(&["free", ADDRESS]);
        command.env("NO_COLOR", "1");
        netns.confine(&mut command);
        terminal.confine(&mut command);
        let process = Process::start(&mut command, Signal::KILL).unwrap();
        let dialogue = Self { terminal, process, holder };
        dialogue.waits_for(&format!("kill {}", dialogue.holder.pid()));
        dialogue.waits_for("  ends ");
        dialogue
    }

    #[track_caller]
    fn waits_for(&self, text: &str) {
        let found = self.terminal.screen.wait_for_text(patience(), text);
        found.unwrap_or_else(|why| panic!("no {text} ({why:?})\n{}", self.terminal.screen.text()));
    }

    /// Types the answer, and returns the exit code.
    fn answers(&mut self, answer: &str) -> i32 {
        self.terminal.types(answer);
        code(self.process.wait_or_panic(patience()))
    }
}

#[test]
fn yes() {
    let netns = Netns::new();
    let mut dialogue = Dialogue::start(&netns);
    assert_eq!(dialogue.answers("y\n"), 0);
    dialogue.waits_for("is free");
    assert!(!is_alive(dialogue.holder.pid()));
}

#[test]
fn no() {
    for answer in ["n\n", "\n", "why?\n"] {
        let netns = Netns::new();
        let mut dialogue = Dialogue::start(&netns);
        assert_eq!(dialogue.answers(answer), 3, "{answer}");
        dialogue.waits_for("is still held");
        assert!(is_alive(dialogue.holder.pid()));
    }
}

#[test]
fn ctrl_c() {
    let netns = Netns::new();
    let mut dialogue = Dialogue::start(&netns);
    assert_eq!(dialogue.answers(CTRL_C), 130);
    dialogue.waits_for("nothing was done");
    assert!(is_alive(dialogue.holder.pid()));
}

/// The holder has got its signal, and goes on.
#[test]
fn ctrl_c_afterwards() {
    let netns = Netns::new();
    let blocks = Helper::new(&netns).noting([Op::Block(15)]);
    let mut dialogue = Dialogue::about(blocks.holds([tcp(ADDRESS).listening()]), &netns);
    dialogue.terminal.types("y\n");
    let pid = dialogue.holder.pid();
    let deadline = Instant::now() + patience();
    while !has_sigterm_pending(pid) {
        assert!(Instant::now() < deadline, "no signal\n{}", dialogue.terminal.screen.text());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(dialogue.answers(CTRL_C), 130);
    dialogue.waits_for(&format!("sent SIGTERM to binder[{pid}]"));
    dialogue.waits_for(&format!("binder[{pid}] is still running after SIGTERM"));
    dialogue.waits_for("interrupted while waiting; the steps above were done");
    assert!(is_alive(pid));
}

/// Whether SIGTERM waits for a process that blocks it (`ShdPnd`, proc_pid_status(5)).
fn has_sigterm_pending(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
    u64::from_str_radix(pending.trim(), 16).unwrap() & (1 << 14) != 0
}

/// While somebody thinks about it, the holder exits, and another process gets its number.
#[test]
fn the_number_of_another_process() {
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    // Others of the machine take numbers too.
    const TRIES: usize = 200;
    let netns = Netns::new();
    let mut dialogue = Dialogue::start(&netns);
    let number = dialogue.holder.pid();
    kill_process(pid(number), Signal::KILL).unwrap();
    dialogue.holder.wait();
    let mut bystander = None;
    for _ in 0..TRIES {
        fs::write(LAST_PID, (number - 1).to_string()).unwrap();
        let mut sleep = Command::new("sleep");
        let mut process = Process::start(sleep.arg("600"), Signal::KILL).unwrap();
        if process.pid() == number {
            bystander = Some(process);
            break;
        }
        process.signal(Signal::KILL);
        process.wait_or_panic(patience());
    }
    // A guest has nothing else to start.
    let Some(bystander) = bystander else {
        assert!(!in_guest(), "{number} was never given again");
        return;
    };
    assert_eq!(dialogue.answers("y\n"), 0);
    dialogue.waits_for("is another process now");
    dialogue.waits_for("is free");
    assert!(is_alive(bystander.pid()));
}
