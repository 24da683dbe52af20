//! Events whose outcome is not known yet.

/// An event that waits.
pub struct Waiting {
    /// Its name.
    pub id: String,
    /// Its first failure and its last, in nanoseconds of `CLOCK_BOOTTIME`.
    pub first_ns: u64,
    /// See there.
    pub last_ns: u64,
    /// The failed binds that it stands for.
    pub count: u64,
    /// Attempts of the case when it was told.
    pub tries: u64,
}

impl Waiting {
    /// When the window is over.
    pub fn due_ns(&self, window_ns: u64) -> u64 {
        self.last_ns.saturating_add(window_ns)
    }
}
