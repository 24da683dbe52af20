//! Where records go.

use std::io;

use crate::event::Record;

pub mod human;
pub mod json;
pub mod sanitize;

/// One destination. Called from a thread of its own.
pub trait Sink: Send {
    /// Writes one record and lets its reader see it.
    ///
    /// # Errors
    /// The destination does not take it.
    fn write(&mut self, record: &Record) -> io::Result<()>;
}
