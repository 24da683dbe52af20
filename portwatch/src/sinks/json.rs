//! One JSON object per line.

use std::io::{self, Write};

use crate::{event::Record, sinks::Sink};

/// Writes JSON Lines.
pub struct Json<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write + Send> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, line: Vec::with_capacity(4096) }
    }
}

impl<W: Write + Send> Sink for Json<W> {
    /// The line goes out in one write, so that it is never seen in part.
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        self.out.flush()
    }
}
