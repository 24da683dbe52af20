//! How much memory a record takes while it is kept.

use super::{Event, Record};
use crate::{
    diagnose::{Move, RefusedBy},
    evidence::{Gap, Process, Socket},
    text::bounds::written,
};

/// What the allocator takes for a short text, beside what its field's name takes in JSON.
const OF_TEXT: usize = 24;
/// Texts that processes have, one with another.
const TEXTS: usize = 8;

/// The bytes that a record takes: all that is written of it, and the parts of fixed size,
/// of which not all is. `None` for one that cannot be written.
pub fn of(record: &Record) -> Option<usize> {
    let parts = match record {
        Record::BindFailure(event) => parts(event),
        Record::Loss(_) | Record::Agent(_) => 0,
    };
    Some(size_of::<Record>() + written(record)? + parts)
}

/// The same of an event alone.
pub fn of_event(event: &Event) -> usize {
    // One that cannot be written is dropped by every sink; it has its fixed parts only.
    written(event).unwrap_or_default() + parts(event)
}

/// Lists grow by more than they need, and what they have is taken.
fn parts(event: &Event) -> usize {
    let holders: usize = event.sockets.iter().map(|socket| socket.holders.capacity()).sum();
    let diagnosis = &event.diagnosis;
    size_of::<Event>()
        + event.sockets.capacity() * size_of::<Socket>()
        + holders * (size_of::<Process>() + TEXTS * OF_TEXT)
        + event.gaps.capacity() * (size_of::<Gap>() + 2 * OF_TEXT)
        + diagnosis.refused_by.capacity() * size_of::<RefusedBy>()
        + diagnosis.moves.capacity() * size_of::<Move>()
        + diagnosis.notes.capacity() * size_of::<String>()
}

#[cfg(test)]
mod tests;
