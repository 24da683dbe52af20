//! The JSON Schemas of what portwatch writes. A test generates them from the types
//! (`PORTWATCH_GOLDEN=1` writes them), and the build script compresses the files: the generator
//! would be 300 KB of the binary.

use std::io;

/// The schema of every line of the stream (JSON Schema 2020-12). Fields that may be missing are not
/// required.
pub const STREAM: Compressed =
    Compressed(include_bytes!(concat!(env!("OUT_DIR"), "/stream.schema.json.zst")));
/// The schema of the answers of `portwatch explain`.
pub const EXPLANATION: Compressed =
    Compressed(include_bytes!(concat!(env!("OUT_DIR"), "/explanation.schema.json.zst")));
/// The schema of the records of `portwatch free`.
pub const ACTION: Compressed =
    Compressed(include_bytes!(concat!(env!("OUT_DIR"), "/action.schema.json.zst")));

/// A compressed text.
pub struct Compressed(&'static [u8]);

impl Compressed {
    /// Returns the text.
    ///
    /// # Errors
    /// No memory is left.
    pub fn text(&self) -> io::Result<String> {
        io::read_to_string(zstd::Decoder::new(self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use schemars::{JsonSchema, generate::SchemaSettings};

    use super::*;
    use crate::{
        event::{Record, action::Action},
        explain::Explanation,
    };

    fn is_that_of<T: JsonSchema>(title: &str, file: &str, built_in: &Compressed) {
        let mut schema =
            SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
        schema.insert("title".to_owned(), title.into());
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
        if env::var_os("PORTWATCH_GOLDEN").is_some() {
            // The next build embeds it.
            return fs::write(&path, &text).unwrap();
        }
        let hint = "PORTWATCH_GOLDEN=1 writes it anew";
        assert!(fs::read_to_string(&path).unwrap() == text, "{}: {hint}", path.display());
        assert!(built_in.text().unwrap() == text, "{file}: not what was built in: build again");
    }

    #[test]
    fn the_files_are_the_schemas_of_the_types() {
        is_that_of::<Record>("A line of portwatch's stream", "stream.schema.json", &STREAM);
        let answer = "An answer of portwatch explain";
        is_that_of::<Explanation>(answer, "explanation.schema.json", &EXPLANATION);
        is_that_of::<Action>("A record of portwatch free", "action.schema.json", &ACTION);
    }
}
