//! Estimates how much memory a record needs.

use super::{Action, Event, Outcome, Record, action::Done};
use crate::{
    diagnose::{Diagnosis, Move, RefusedBy},
    evidence::{Gap, Process, Socket},
    text::bounds::written,
};

/// The allocator's overhead for a short text, in addition to the size of its field's name in
/// JSON.
const OF_TEXT: usize = 24;
/// The average number of texts of a process.
const TEXTS: usize = 8;

/// Returns the number of bytes that a record needs: its JSON, and the parts of fixed size that
/// JSON may omit. Returns `None` if it cannot be written.
pub fn of(record: &Record) -> Option<usize> {
    let parts = match record {
        Record::BindFailure(event) => parts(event),
        Record::Outcome(outcome) => size_of::<Outcome>() + of_gaps(&outcome.gaps),
        Record::Action(action) => of_action(action),
        Record::Loss(_) | Record::Agent(_) => 0,
    };
    Some(size_of::<Record>() + written(record)? + parts)
}

/// Returns the same number for an event.
pub fn of_event(event: &Event) -> usize {
    // Every sink drops an event that cannot be written, so only its parts of fixed size count.
    written(event).unwrap_or_default() + parts(event)
}

/// Returns the parts of fixed size. Lists have spare capacity, which counts too.
fn parts(event: &Event) -> usize {
    let holders: usize = event.sockets.iter().map(|socket| socket.holders.capacity()).sum();
    size_of::<Event>()
        + event.sockets.capacity() * size_of::<Socket>()
        + holders * (size_of::<Process>() + TEXTS * OF_TEXT)
        + of_gaps(&event.gaps)
        + of_diagnosis(&event.diagnosis)
}

fn of_action(action: &Action) -> usize {
    let diagnoses = action.before.iter().chain(&action.after);
    size_of::<Action>()
        + action.steps.capacity() * (size_of::<Done>() + 3 * OF_TEXT)
        + diagnoses.map(of_diagnosis).sum::<usize>()
}

fn of_diagnosis(diagnosis: &Diagnosis) -> usize {
    diagnosis.refused_by.capacity() * size_of::<RefusedBy>()
        + diagnosis.moves.capacity() * size_of::<Move>()
        + diagnosis.notes.capacity() * size_of::<String>()
}

fn of_gaps(gaps: &Vec<Gap>) -> usize {
    gaps.capacity() * (size_of::<Gap>() + 2 * OF_TEXT)
}

#[cfg(test)]
mod tests;
