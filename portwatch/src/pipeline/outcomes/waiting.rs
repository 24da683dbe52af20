//! Events whose outcome is not known yet.

/// An event that waits.
pub struct Waiting {
    /// Its id.
    pub id: String,
    /// Time of its first failure, in nanoseconds of `CLOCK_BOOTTIME`.
    pub first_ns: u64,
    /// Time of its last failure, in the same unit.
    pub last_ns: u64,
    /// Number of failed binds that it reports.
    pub count: u64,
    /// The number of the case's attempts when the event was reported.
    pub tries: u64,
}

impl Waiting {
    /// Returns when its window ends.
    pub fn due_ns(&self, window_ns: u64) -> u64 {
        self.last_ns.saturating_add(window_ns)
    }
}
