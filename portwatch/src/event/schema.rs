//! The JSON Schema of the stream, generated from the types.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use super::Record;

/// Returns the schema of every line of the stream (JSON Schema 2020-12). Fields that may be
/// missing are not required.
pub fn stream() -> Schema {
    of::<Record>("A line of portwatch's stream")
}

/// Returns the schema of `T`.
pub(crate) fn of<T: JsonSchema>(title: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema
}
