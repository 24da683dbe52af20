//! What threads have in common. Nothing that may take time is ever done under a lock,
//! because nobody gets hold of one: these types take a value or give one, and run no
//! code of their users'. Clippy knows locks of the standard library in this module
//! only (clippy.toml).

#![allow(clippy::disallowed_types, reason = "this is the module that has them")]

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod fair_queue;
pub mod queue;

/// A value that is replaced, looked at by a copy, or added to.
#[derive(Debug, Default)]
pub struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    /// Puts another value there, and gives the one that was.
    pub fn replace(&self, value: T) -> T {
        std::mem::replace(&mut *self.lock(), value)
    }

    /// A copy, as it is now.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.lock().clone()
    }

    /// Nothing that panics is done under the lock.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Shared<Vec<T>> {
    /// Adds one at the end.
    pub fn push(&self, one: T) {
        self.lock().push(one);
    }
}
