//! The JSON Schema of the stream, from the types themselves.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::Record;

/// What every line of the stream is valid against (JSON Schema 2020-12). Fields
/// that a reader must expect to be missing are not required.
pub fn stream() -> Schema {
    of::<Record>("A line of portwatch's stream")
}

/// The schema of `T`.
pub(crate) fn of<T: JsonSchema>(title: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema
}
