//! Differences between the current rules' diagnosis and the recorded one.

use std::{fmt::Write as _, io};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{diagnose::Diagnosis, event::Event, text::sanitize::printable};

/// An event whose diagnosis has changed.
#[derive(Serialize)]
pub struct Change {
    id: String,
    time: String,
    summary: String,
    /// The changes, by field of the diagnosis.
    changes: Map<String, Value>,
}

impl Change {
    /// Compares the two diagnoses. Returns `None` if nothing has changed.
    ///
    /// # Errors
    /// A diagnosis cannot be serialised.
    pub fn between(event: &Event, now: &Diagnosis) -> Result<Option<Self>, serde_json::Error> {
        if event.diagnosis == *now {
            return Ok(None);
        }
        let (was, now) = (serde_json::to_value(&event.diagnosis)?, serde_json::to_value(now)?);
        let (Value::Object(was), Value::Object(mut now)) = (was, now) else { return Ok(None) };
        let mut changes = Map::new();
        for (field, was) in was {
            let now = now.remove(&field).unwrap_or(Value::Null);
            if was != now {
                changes.insert(field, serde_json::json!({"was": was, "now": now}));
            }
        }
        let summary = event.diagnosis.summary.clone();
        Ok(Some(Self { id: event.id.clone(), time: event.time.to_string(), summary, changes }))
    }

    /// Writes it as text, or as a JSON line.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, json: bool, out: &mut impl io::Write) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            return out.write_all(b"\n");
        }
        out.write_all(self.text().as_bytes())
    }

    fn text(&self) -> String {
        let mut text = format!("{}  {}\n  {}\n", self.time, self.id, printable(&self.summary));
        for (field, change) in &self.changes {
            for (sign, side) in [('-', "was"), ('+', "now")] {
                let value = change.get(side).map(Value::to_string).unwrap_or_default();
                let _ = writeln!(text, "  {sign} {field}: {}", printable(&value));
            }
        }
        text.push('\n');
        text
    }
}
