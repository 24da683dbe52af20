//! The agent, of whose stream only the numbers are kept: in half an hour it is too
//! long for the memory.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use portwatch_tests::{agent::is_anybodys, event, patience, programs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running agent.
pub struct Agent {
    child: Child,
    reader: Option<JoinHandle<Told>>,
    /// The events about one refusal each.
    events: Receiver<Value>,
}

/// What it told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Refusals in events.
    pub events: u64,
    /// Counted losses.
    pub losses: u64,
    /// Those among them that may be anybody's on the machine.
    pub losses_of_anybody: u64,
}

impl Agent {
    /// Runs `portwatch` with `arguments` until it says that it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(programs::portwatch().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let stdout = child.stdout.take().unwrap();
        let reader = thread::spawn(move || {
            read(stdout, |event| {
                // Single ones are few among so many.
                if event["count"] == 1 {
                    sender.send(event).ok();
                }
            })
        });
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(stderr.any(|line| line.unwrap().contains("ready")), "it did not start");
        thread::spawn(move || stderr.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Self { child, reader: Some(reader), events }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Forgets what was told so far.
    pub fn forget(&self) {
        while self.events.try_recv().is_ok() {}
    }

    /// Waits for the event about a process.
    pub fn wait_for(&self, pid: u32) -> Value {
        let deadline = Instant::now() + patience();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left.max(Duration::from_millis(1)));
            let event = event.unwrap_or_else(|_| panic!("nothing about process {pid}"));
            if event["process"]["pid"] == pid {
                return event;
            }
        }
    }

    /// Asks it to end, and gives all that it told.
    pub fn end(&mut self) -> Told {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.reader.take().unwrap().join().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ended already, unless the test has failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn read(stdout: ChildStdout, mut event: impl FnMut(Value)) -> Told {
    let mut told = Told::default();
    for line in BufReader::new(stdout).lines() {
        let record: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let count = record["count"].as_u64().unwrap_or(0);
        match record["schema"].as_str() {
            Some(event::EVENT) => {
                told.events += count;
                event(record);
            }
            Some(event::LOSS) => {
                told.losses += count;
                told.losses_of_anybody += if is_anybodys(&record) { count } else { 0 };
            }
            _ => {}
        }
    }
    told
}
