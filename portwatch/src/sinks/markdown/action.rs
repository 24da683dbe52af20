//! What `free` did, as the last part of a note.

use super::{Note, moment};
use crate::event::action::{Action, By};

/// Returns the sections that follow the evidence: what was done, and what came of it.
pub fn action(action: &Action) -> String {
    let mut note = Note::default();
    note.section("What was done");
    if action.steps.is_empty() {
        note.item("nothing was stopped");
    }
    for step in &action.steps {
        let by = match step.by {
            Some(By::Signal) => "a signal",
            Some(By::Systemd) => "systemd",
            Some(By::Engine) => "the container engine",
            Some(By::Command) => "the manager's own command",
            None => "not done",
        };
        note.item(&format!("{} ({by}, {} ms)", step.what, step.took_ms));
        note.block(&format!("$ {}", step.command));
        for process in &step.signalled {
            let exited = if process.exited { "exited" } else { "is still running" };
            note.item(&format!(
                "{}[{}] {exited} after {}",
                process.comm, process.pid, process.signal
            ));
        }
    }
    note.section("What came of it");
    let why = if action.why.is_empty() { String::new() } else { format!(": {}", action.why) };
    let result = action.result.to_string().replace('_', " ");
    note.item(&format!("{result}{why}"));
    note.item(&format!(
        "from {}, for {:.1} s",
        moment(action.time),
        action.took_ms as f64 / 1000.0
    ));
    note.item(&match action.time_wait.count {
        0 => "no TIME-WAIT blocked a bind meanwhile".to_owned(),
        count => format!("{count} in TIME-WAIT blocked a bind meanwhile"),
    });
    if let Some(diagnosis) = &action.after {
        note.item(&format!("now: {}", diagnosis.summary));
    }
    note.0.push('\n');
    note.0
}
