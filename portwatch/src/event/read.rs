//! Reads a line of the stream. Total: any text results in a record or an error.

use serde_json::Value;

use super::{
    ACTION, AGENT, BIND_FAILURE, LOSS, OUTCOME, Record,
    versions::{KINDS, VersionError, bring_up_to_date},
};
use crate::advice::Advised;

/// The longest line that is read, in bytes: 64 times the largest event.
pub const LONGEST: usize = 16 * 1024 * 1024;

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON, or ends too early.
    #[error("not JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// Its kind or version is unknown.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A field is missing, or has the wrong type.
    #[error("not a {schema}: {source}")]
    Form {
        /// Its schema.
        schema: &'static str,
        /// The error.
        source: serde_json::Error,
    },
}

impl Advised for ReadError {
    fn hint(&self) -> &'static str {
        "run portwatch schema for the format of a record"
    }
}

/// Reads one line.
///
/// # Errors
/// It is not JSON, was not written by portwatch, has a newer version, or lacks a field.
pub fn record(line: &str) -> Result<Record, ReadError> {
    // Nearly all lines are events of the current version.
    if has_schema(line, BIND_FAILURE)
        && let Ok(event) = serde_json::from_str(line)
    {
        return Ok(Record::BindFailure(event));
    }
    let mut value: Value = serde_json::from_str(line).map_err(ReadError::Json)?;
    let schema = bring_up_to_date(&mut value, &KINDS)?;
    typed(schema, value).map_err(|source| ReadError::Form { schema, source })
}

fn typed(schema: &'static str, value: Value) -> Result<Record, serde_json::Error> {
    Ok(match schema {
        LOSS => Record::Loss(serde_json::from_value(value)?),
        AGENT => Record::Agent(serde_json::from_value(value)?),
        ACTION => Record::Action(serde_json::from_value(value)?),
        OUTCOME => Record::Outcome(serde_json::from_value(value)?),
        _ => Record::BindFailure(serde_json::from_value(value)?),
    })
}

/// Returns whether the line starts like a record of this schema, as it is written.
pub fn has_schema(line: &str, schema: &str) -> bool {
    let rest = line.strip_prefix(r#"{"schema":""#).and_then(|rest| rest.strip_prefix(schema));
    rest.is_some_and(|rest| rest.starts_with(r#"","#))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{AgentNotice, AgentState, Event, Loss, action, outcome::examples};

    /// An event as a capture contains it.
    const EVENT: &str = include_str!("../../../tests/golden/listener.jsonl");

    fn event() -> Event {
        match record(EVENT.trim_end()) {
            Ok(Record::BindFailure(event)) => *event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let event = event();
        let host = event.host.clone();
        let outcomes = examples().into_iter().map(|outcome| Record::Outcome(Box::new(outcome)));
        for written in [
            Record::BindFailure(Box::new(event.clone())),
            Record::Loss(Loss::now("ring", 3)),
            Record::Agent(AgentNotice::now(AgentState::Started, &host)),
        ]
        .into_iter()
        .chain(outcomes)
        .chain([Record::Action(Box::new(action::example(event.diagnosis.clone())))])
        {
            let line = serde_json::to_string(&written).unwrap();
            assert_eq!(record(&line).unwrap(), written);
            // Programs that pass it on may change order and spacing.
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(record(&format!(" {value:#}")).unwrap(), written);
        }
    }

    #[test]
    fn fields_that_came_later_may_be_missing() {
        let mut value: Value = serde_json::from_str(EVENT).unwrap();
        for later in ["connections", "ephemeral", "last_holder"] {
            value.as_object_mut().unwrap().remove(later);
        }
        value["unheard_of"] = 1.into();
        assert!(matches!(record(&value.to_string()), Ok(Record::BindFailure(_))));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |line: &str| record(line).unwrap_err().to_string();
        insta::assert_snapshot!(said("{"), @"not JSON: EOF while parsing an object at line 1 column 1");
        insta::assert_snapshot!(said("{}"), @"not a portwatch record: it has no `schema`");
        insta::assert_snapshot!(said(r#"{"schema":"portwatch/bind-failure/v9"}"#), @"written by a newer portwatch: portwatch/bind-failure/v9; this one reads up to portwatch/bind-failure/v1");
        insta::assert_snapshot!(said(r#"{"schema":"portwatch/loss/v1"}"#), @"not a portwatch/loss/v1: missing field `time`");
    }

    proptest! {
        #[test]
        fn any_text_gives_a_record_or_an_error(text: String) {
            let _ = record(&text);
        }

        #[test]
        fn so_does_an_event_that_is_cut_or_changed(at in 0..EVENT.len(), byte: u8) {
            let mut bytes = EVENT.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = record(&String::from_utf8_lossy(&bytes));
            let _ = record(&String::from_utf8_lossy(&EVENT.as_bytes()[..at]));
        }
    }
}
