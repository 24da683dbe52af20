//! Ends threads that run until they are stopped.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Stops them when this is dropped, also if the test has failed, because `std::thread::scope`
/// waits for them then too.
pub struct Stopping<'a>(pub &'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
