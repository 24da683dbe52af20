//! Data that threads share. No slow operation can run under a lock, because no lock is visible
//! outside: these types accept a value or return one, and do not run code of their callers.
//! Clippy allows locks of the standard library in this module only (clippy.toml).

#![allow(clippy::disallowed_types, reason = "this is the module that has them")]

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod fair_queue;
pub mod queue;

/// A value that is replaced, copied, or appended to.
#[derive(Debug, Default)]
pub struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    /// Stores another value, and returns the previous one.
    pub fn replace(&self, value: T) -> T {
        std::mem::replace(&mut *self.lock(), value)
    }

    /// Returns a copy.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.lock().clone()
    }

    /// Locks it. Nothing panics under the lock.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Shared<Vec<T>> {
    /// Appends a value.
    pub fn push(&self, one: T) {
        self.lock().push(one);
    }
}
