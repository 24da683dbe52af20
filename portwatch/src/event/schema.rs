//! The JSON Schema of the stream, from the types themselves.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};

use super::Record;
use crate::explain::Explanation;

/// What every line of the stream is valid against (JSON Schema 2020-12). Fields
/// that a reader must expect to be missing are not required.
pub fn stream() -> Schema {
    of::<Record>("A line of portwatch's stream")
}

/// What every answer of `portwatch explain` is valid against.
pub fn explanation() -> Schema {
    of::<Explanation>("An answer of portwatch explain")
}

fn of<T: JsonSchema>(title: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema
}

/// The schema of a time stamp; schemars knows jiff's only up to another version.
pub struct Time;

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}
