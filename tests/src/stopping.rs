//! The end of threads that go on until they are told to stop.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Tells them when this is dropped: also where the test has failed, since they are waited
/// for then as well (`std::thread::scope`).
pub struct Stopping<'a>(pub &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
