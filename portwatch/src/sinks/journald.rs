//! Writes to the systemd journal, by its native protocol (systemd.journal-fields(7)). What
//! programs search for is in separate fields, and the whole event is in one field.

use std::{io, path::Path};

use libsystemd::logging::{Priority, journal_send};

use crate::{
    event::{Action, AgentNotice, AgentState, Event, Loss, Outcome, Record, outcome::UnitKind},
    sinks::{Sink, became::sentence, deed},
    text::sanitize::printable,
};

/// The id of the catalog entry about a failed bind (packaging/portwatch.catalog).
pub const REFUSED: &str = "ee4bb6a7fbbd40b990cd543f3ab2e727";
/// The id of the entry about losses.
pub const LOST: &str = "486eecfdac354f6f90d9a2e3edf96cdd";
/// The id of the entry about the agent itself.
pub const AGENT: &str = "9774266f95a34eed863a935003f0f864";
/// The id of the entry about the outcome of a failed bind.
pub const OUTCOME: &str = "2e01abed993b4e358f3035d405661fcb";
/// The id of the entry about what `portwatch free` did.
pub const ACTION: &str = "4cfeed7c24d14a388155b0708cea77f3";
/// The field that contains the record, as in every other output.
pub const RECORD: &str = "PORTWATCH_EVENT";

/// Writes to the journal of the running system.
pub struct Journald;

impl Sink for Journald {
    /// Writes a record. A journal that restarts does not answer, and the next record finds it
    /// again. So a missing journal never ends the sink.
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let Entry { priority, message, fields } = entry(record, is_alive)?;
        journal_send(priority, &message, fields.into_iter()).map_err(io::Error::other)
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// The content of a message.
struct Entry {
    priority: Priority,
    message: String,
    fields: Vec<(&'static str, String)>,
}

fn entry(record: &Record, is_alive: impl Fn(u32) -> bool) -> io::Result<Entry> {
    let (priority, message, mut fields) = match record {
        Record::BindFailure(event) => {
            let message = printable(&event.diagnosis.summary).into_owned();
            (Priority::Error, message, refused(event, is_alive))
        }
        Record::Loss(loss) => {
            let message = format!("{} records were lost ({})", loss.count, printable(&loss.place));
            (Priority::Warning, message, lost(loss))
        }
        Record::Outcome(outcome) => {
            let priority = if outcome.is_harm() { Priority::Warning } else { Priority::Info };
            (priority, printable(&sentence(outcome)).into_owned(), became(outcome))
        }
        Record::Action(action) => {
            (Priority::Notice, printable(&deed::sentence(action)).into_owned(), deed(action))
        }
        Record::Agent(notice) => (Priority::Info, agent_message(notice), agent(notice)),
    };
    fields.push(("SYSLOG_IDENTIFIER", "portwatch".to_owned()));
    fields.push((RECORD, serde_json::to_string(record)?));
    Ok(Entry { priority, message, fields })
}

fn refused(event: &Event, is_alive: impl Fn(u32) -> bool) -> Vec<(&'static str, String)> {
    let Event { count, failure, process, diagnosis, .. } = event;
    let holder = diagnosis.holder.as_ref();
    let user_unit = process.unit_owner.is_some();
    let unit = process.unit.as_ref();
    let fields = [
        ("MESSAGE_ID", Some(REFUSED.to_owned())),
        // journald adds OBJECT_* fields for a running process, if the sender is root. The pid
        // must not be sent if it was reused.
        ("OBJECT_PID", Some(process.pid).filter(|&pid| is_alive(pid)).map(|pid| pid.to_string())),
        // For a process that has exited journald can add nothing, and `journalctl --unit`
        // searches this field.
        ("OBJECT_SYSTEMD_UNIT", unit.filter(|_| !user_unit).cloned()),
        ("OBJECT_SYSTEMD_USER_UNIT", unit.filter(|_| user_unit).cloned()),
        ("PORTWATCH_ID", Some(event.id.clone())),
        ("PORTWATCH_COUNT", Some(count.to_string())),
        ("PORTWATCH_CAUSE", Some(diagnosis.cause.to_string())),
        ("PORTWATCH_STAGE", Some(failure.stage.to_string())),
        ("PORTWATCH_PROTOCOL", Some(failure.protocol.to_string())),
        ("PORTWATCH_ADDRESS", Some(failure.address.to_string())),
        ("PORTWATCH_PORT", Some(failure.port.to_string())),
        ("PORTWATCH_PID", Some(process.pid.to_string())),
        ("PORTWATCH_COMM", process.comm.clone()),
        ("PORTWATCH_UNIT", process.unit.clone()),
        ("PORTWATCH_CONTAINER", process.container.clone()),
        ("PORTWATCH_HOLDER_CLASS", holder.map(|holder| holder.class.to_string())),
        ("PORTWATCH_HOLDER_PID", holder.and_then(|holder| holder.pid).map(|pid| pid.to_string())),
        ("PORTWATCH_HOLDER_COMM", holder.and_then(|holder| holder.comm.clone())),
        ("PORTWATCH_HOLDER_UNIT", holder.and_then(|holder| holder.unit.clone())),
        ("PORTWATCH_MOVE", diagnosis.moves.iter().find_map(|step| step.command.clone())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn lost(loss: &Loss) -> Vec<(&'static str, String)> {
    vec![
        ("MESSAGE_ID", LOST.to_owned()),
        ("PORTWATCH_LOST_AT", loss.place.clone()),
        ("PORTWATCH_COUNT", loss.count.to_string()),
    ]
}

/// Returns the fields of an outcome. The unit is that of the failing process, so that
/// `journalctl --unit` shows the outcome too.
fn became(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let Outcome { id, protocol, address, port, tries, process, exit, unit, .. } = outcome;
    // A container may have the same name as a unit.
    let service = unit.as_ref().filter(|unit| unit.kind == UnitKind::Unit);
    let of_user = service.is_some_and(|unit| unit.owner.is_some());
    let service = service.map(|unit| unit.name.clone());
    let fields = [
        ("MESSAGE_ID", Some(OUTCOME.to_owned())),
        ("OBJECT_SYSTEMD_UNIT", service.clone().filter(|_| !of_user)),
        ("OBJECT_SYSTEMD_USER_UNIT", service.filter(|_| of_user)),
        ("PORTWATCH_ID", Some(id.clone())),
        ("PORTWATCH_OUTCOME", Some(outcome.outcome.to_string())),
        ("PORTWATCH_AFTER_MS", Some(outcome.after_ms.to_string())),
        ("PORTWATCH_TRIES", Some(tries.to_string())),
        ("PORTWATCH_PROTOCOL", Some(protocol.to_string())),
        ("PORTWATCH_ADDRESS", Some(address.to_string())),
        ("PORTWATCH_PORT", Some(port.to_string())),
        ("PORTWATCH_BOUND", outcome.bound.map(|bound| bound.to_string())),
        ("PORTWATCH_PID", Some(process.pid.to_string())),
        ("PORTWATCH_COMM", process.comm.clone()),
        ("PORTWATCH_UNIT", unit.as_ref().map(|unit| unit.name.clone())),
        ("PORTWATCH_EXIT_STATUS", exit.and_then(|exit| exit.status).map(|it| it.to_string())),
        ("PORTWATCH_EXIT_SIGNAL", exit.and_then(|exit| exit.signal).map(|it| it.to_string())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Returns the fields of an action. The holder is the one before it.
fn deed(action: &Action) -> Vec<(&'static str, String)> {
    let holder = action.before.as_ref().and_then(|diagnosis| diagnosis.holder.as_ref());
    let fields = [
        ("MESSAGE_ID", Some(ACTION.to_owned())),
        ("PORTWATCH_ACTION", Some(action.result.to_string())),
        ("PORTWATCH_BY", Some(action.by())),
        ("PORTWATCH_AFTER_MS", Some(action.took_ms.to_string())),
        ("PORTWATCH_PROTOCOL", Some(action.protocol.to_string())),
        ("PORTWATCH_ADDRESS", action.address.map(|address| address.to_string())),
        ("PORTWATCH_PORT", Some(action.port.to_string())),
        ("PORTWATCH_HOLDER_CLASS", holder.map(|holder| holder.class.to_string())),
        ("PORTWATCH_HOLDER_PID", holder.and_then(|holder| holder.pid).map(|pid| pid.to_string())),
        ("PORTWATCH_HOLDER_COMM", holder.and_then(|holder| holder.comm.clone())),
        ("PORTWATCH_HOLDER_UNIT", holder.and_then(|holder| holder.unit.clone())),
        ("PORTWATCH_MOVE", action.steps.first().map(|step| step.command.clone())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn agent(notice: &AgentNotice) -> Vec<(&'static str, String)> {
    vec![
        ("MESSAGE_ID", AGENT.to_owned()),
        ("PORTWATCH_STATE", notice.state.to_string()),
        ("PORTWATCH_HOOKS", notice.host.hooks.clone()),
        ("PORTWATCH_VERSION", notice.version.clone()),
    ]
}

fn agent_message(notice: &AgentNotice) -> String {
    match notice.state {
        AgentState::Started => format!("portwatch started, hook set {}", notice.host.hooks),
        AgentState::Stopped => "portwatch stopped".to_owned(),
    }
}

/// Returns the text of a record that a reader of the journal sees.
#[cfg(test)]
pub(crate) fn message(record: &Record) -> String {
    entry(record, |_| true).map(|entry| entry.message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::read;

    fn fields(alive: bool) -> Vec<(&'static str, String)> {
        let line = include_str!("../../../tests/golden/listener.jsonl");
        let record = read::record(line.trim_end()).unwrap();
        let Entry { fields, .. } = entry(&record, |_| alive).unwrap();
        let whole = fields.iter().find(|(name, _)| *name == RECORD).unwrap();
        assert_eq!(read::record(&whole.1).unwrap(), record);
        fields.into_iter().filter(|(name, _)| *name != RECORD).collect()
    }

    #[test]
    fn what_a_machine_looks_for_is_a_field() {
        insta::assert_debug_snapshot!(fields(true));
    }

    #[test]
    fn an_outcome_is_joined_by_the_id_and_says_what_a_machine_looks_for() {
        let told: Vec<_> = crate::event::outcome::examples()
            .into_iter()
            .map(|outcome| {
                let Entry { priority, message, mut fields } =
                    entry(&Record::Outcome(Box::new(outcome)), |_| true).unwrap();
                fields.retain(|(name, _)| *name != RECORD);
                (priority as u8, message, fields)
            })
            .collect();
        insta::assert_debug_snapshot!(told);
    }

    #[test]
    fn an_action_says_what_a_machine_looks_for() {
        let line = include_str!("../../../tests/golden/listener.jsonl");
        let Ok(Record::BindFailure(event)) = read::record(line.trim_end()) else { panic!() };
        let action = crate::event::action::example(event.diagnosis);
        let record = Record::Action(Box::new(action));
        let Entry { message, mut fields, .. } = entry(&record, |_| true).unwrap();
        fields.retain(|(name, _)| *name != RECORD);
        insta::assert_debug_snapshot!((message, fields));
    }

    #[test]
    fn a_process_that_is_gone_is_not_asked_after() {
        let names: Vec<_> = fields(false).into_iter().map(|(name, _)| name).collect();
        assert!(!names.contains(&"OBJECT_PID") && names.contains(&"OBJECT_SYSTEMD_UNIT"));
    }
}
