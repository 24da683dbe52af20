//! The journal: portwatch's entries in order, and what `journalctl` finds by unit.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use portwatch_tests::event::{EVENT, Event};
use serde_json::Value;

use crate::stage::{PATIENCE, output};

/// portwatch's records in the order in which they are written.
pub struct Journal {
    follower: Child,
    records: Receiver<Value>,
}

impl Journal {
    /// Follows the journal from now on.
    pub fn follow() -> Self {
        let mut follower = Command::new("journalctl")
            .args(["--follow", "--lines=0", "--all", "--output=json"])
            .arg("--identifier=portwatch")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
        let (sender, records) = channel();
        thread::spawn(move || {
            let record = |line: &str| {
                let entry: Value = serde_json::from_str(line).ok()?;
                serde_json::from_str(entry.get("PORTWATCH_EVENT")?.as_str()?).ok()
            };
            let new = lines.map_while(Result::ok).filter_map(|line| record(&line));
            new.map_while(|record: Value| sender.send(record).ok()).for_each(drop);
        });
        Self { follower, records }
    }

    /// Returns the next event for which `is_wanted` holds, and discards those before it.
    #[track_caller]
    pub fn event(&self, is_wanted: impl Fn(&Event) -> bool) -> Event {
        let mut others = Vec::new();
        while let Ok(record) = self.records.recv_timeout(PATIENCE) {
            if record["schema"] == EVENT {
                let event = Event::new(record, 0);
                if is_wanted(&event) {
                    return event;
                }
                others.push(event.text("/diagnosis/summary").to_owned());
            }
        }
        panic!("no such event, but {others:#?}");
    }

    /// Returns the other records so far.
    pub fn rest(&self) -> Vec<Value> {
        self.records.try_iter().filter(|record| record["schema"] == EVENT).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.follower.kill().ok();
        self.follower.wait().ok();
    }
}

/// Asserts that `journalctl` with `arguments`, as a person would call it, has the event.
#[track_caller]
pub fn has(arguments: &[&str], event: &Event) {
    let mut command = Command::new("journalctl");
    command.args(["--all", "--output=json"]).args(arguments);
    let found = output(&mut command);
    let has_it = found.lines().any(|line| {
        let entry: Value = serde_json::from_str(line).unwrap_or_default();
        entry["PORTWATCH_ID"] == event.value["id"]
    });
    assert!(has_it, "journalctl {arguments:?} does not have\n{event}");
}
