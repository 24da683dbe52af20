//! The environment of scenarios: units that are written, started and removed, and the programs
//! that a person would run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use portwatch_tests::{event::Event, paste::Way};
use serde_json::Value;

use crate::{PAYLOAD, freed::free, journal::Journal};

/// The longest wait for an answer: only a missing one takes as long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The releases that are installed.
pub const RELEASES: [&str; 4] = ["2.4.0", "2.4.1", "2.4.2", "2.5.0"];

const UNITS: &str = "/run/systemd/system";

/// One machine with its agent.
pub struct Stage {
    pub journal: Journal,
    /// Who does what an event suggests.
    pub way: Way,
    units: Vec<String>,
    people: Vec<Child>,
}

impl Stage {
    /// Creates it with the releases of a program, and of another one, in their usual
    /// directories.
    pub fn new() -> Self {
        fs::create_dir_all("/opt/app").unwrap();
        fs::create_dir_all(UNITS).unwrap();
        let programs = RELEASES.map(|release| format!("/opt/app/app-{release}"));
        for program in programs.iter().map(String::as_str).chain(["/usr/local/bin/billing"]) {
            fs::copy(format!("{PAYLOAD}/server"), program).expect("nothing runs it");
        }
        Self { journal: Journal::follow(), way: Way::Paste, units: Vec::new(), people: Vec::new() }
    }

    /// Writes a unit of the system.
    pub fn unit(&mut self, name: &str, text: &str) {
        fs::write(Path::new(UNITS).join(name), text).unwrap();
        self.units.push(name.to_owned());
    }

    /// Writes a service that counts as started when it listens.
    pub fn service(&mut self, name: &str, command: &str) {
        self.unit(name, &service(command, ""));
    }

    /// Remembers an instance of a template, to remove it later.
    pub fn instance(&mut self, name: &str) {
        self.units.push(name.to_owned());
    }

    /// Starts a unit that must come up.
    #[track_caller]
    pub fn starts(&self, unit: &str) {
        systemctl(&["daemon-reload"]);
        let said = status(unit);
        assert!(try_systemctl(&["start", unit]), "{unit} does not start\n{said}\n{}", status(unit));
    }

    /// Starts a unit whose bind fails, and returns the event.
    #[track_caller]
    pub fn is_refused(&self, unit: &str) -> Event {
        self.fails(unit);
        let event = self.journal.event(|event| event.text("/process/unit") == unit);
        let faults = event.faults();
        assert!(faults.is_empty(), "{faults}\n{event}");
        event.is_explained();
        crate::journal::has(&["--unit", unit], &event);
        event
    }

    /// Starts a unit that does not come up.
    #[track_caller]
    pub fn fails(&self, unit: &str) {
        systemctl(&["daemon-reload"]);
        assert!(!try_systemctl(&["start", unit]), "{unit} has started\n{}", status(unit));
    }

    /// Starts a command as a person would; waits until it listens.
    #[track_caller]
    pub fn somebody_runs(&mut self, command: &mut Command) {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it is installed");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listens = lines.map_while(Result::ok).any(|line| line == "listening");
        self.people.push(child);
        assert!(listens, "{command:?} does not listen");
    }

    /// Has done what the first command of an event does, and returns what that prints.
    #[track_caller]
    pub fn paste(&self, event: &Event) -> String {
        match self.way {
            Way::Paste => shell(first_command(event)),
            Way::Free => free(event).to_string(),
        }
    }

    /// Stops and removes everything, in any state.
    pub fn strike(&mut self) {
        let units: Vec<_> = self.units.drain(..).collect();
        for unit in units.iter().filter(|unit| !unit.contains("@.")) {
            try_systemctl(&["stop", unit]);
            try_systemctl(&["reset-failed", unit]);
        }
        for unit in &units {
            fs::remove_file(Path::new(UNITS).join(unit)).ok();
        }
        for mut person in self.people.drain(..) {
            person.wait().ok();
        }
        try_systemctl(&["daemon-reload"]);
        self.journal.rest();
    }
}

/// Returns the text of a service that notifies systemd when it listens.
pub fn service(command: &str, more: &str) -> String {
    format!("[Service]\nType=notify\nExecStart={command}\n{more}\n")
}

/// Returns the output of a program, which must succeed.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it is installed");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let said = text(output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    text(output.stdout)
}

/// Runs a command as a person would type it.
#[track_caller]
pub fn shell(command: &str) -> String {
    output(Command::new("sh").args(["-ec", command])).trim().to_owned()
}

/// `systemctl`, which is to succeed.
#[track_caller]
pub fn systemctl(arguments: &[&str]) -> String {
    output(Command::new("systemctl").args(arguments)).trim().to_owned()
}

/// Returns whether `systemctl` succeeds.
pub fn try_systemctl(arguments: &[&str]) -> bool {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A property of a unit.
#[track_caller]
pub fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

fn status(unit: &str) -> String {
    let mut command = Command::new("systemctl");
    let output = command.args(["status", "--full", "--no-pager", unit]).output();
    output.map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Returns a server's answer; reads to the end, so that the server has closed first.
#[track_caller]
pub fn answer(port: u16) -> String {
    let mut said = String::new();
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut said).unwrap();
    said
}

/// Returns the command of the first suggested action that has one.
pub fn first_command(event: &Event) -> &str {
    let mut moves = event.list("/diagnosis/moves").iter();
    moves.find_map(|step| step.get("command").and_then(Value::as_str)).unwrap_or_default()
}

/// Asserts the words for cause and class, and the first command.
#[track_caller]
pub fn says(event: &Event, cause: &str, class: &str, command: &str) {
    let found = (event.text("/diagnosis/cause"), event.text("/diagnosis/holder/class"));
    assert_eq!((found, first_command(event)), ((cause, class), command), "\n{event}");
}
