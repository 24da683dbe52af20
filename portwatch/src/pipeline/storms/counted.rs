//! The count of identical failures, and the event that reports it.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use portwatch_common::Tenant;

use crate::event::{Event, memory};

/// A group's last event and its count.
pub struct Counted {
    /// The tenant.
    pub tenant: Tenant,
    /// The last enriched event.
    pub event: Event,
    /// The bytes of memory that it takes.
    pub size: usize,
    /// Its time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    count: u64,
    first_ns: u64,
    last_ns: u64,
    /// When it is to be reported.
    pub due: Instant,
}

impl Counted {
    /// Creates a count of zero.
    pub fn new(tenant: Tenant, event: Event, at_ns: u64, due: Instant) -> Self {
        let size = memory::of_event(&event);
        Self { tenant, event, size, at_ns, count: 0, first_ns: 0, last_ns: 0, due }
    }

    /// Replaces the last enriched event.
    pub fn look(&mut self, event: Event, at_ns: u64) {
        (self.size, self.event, self.at_ns) = (memory::of_event(&event), event, at_ns);
    }

    /// Adds to the count.
    pub fn add(&mut self, count: u64, first_ns: u64, last_ns: u64) {
        if self.count == 0 {
            self.first_ns = first_ns;
        }
        self.count += count;
        self.last_ns = self.last_ns.max(last_ns);
    }

    /// Returns the event with the count, and resets the count; `None` if it was zero.
    pub fn summary(&mut self) -> Option<Event> {
        let count = std::mem::take(&mut self.count);
        let last_ns = std::mem::take(&mut self.last_ns);
        (count > 0).then(|| Event {
            id: format!("{}-{last_ns:x}", self.event.id),
            count,
            first_seen: Some(self.time_of(self.first_ns)),
            last_seen: Some(self.time_of(last_ns)),
            ..self.event.clone()
        })
    }

    /// Returns the wall-clock time, relative to the time of the last enrichment.
    fn time_of(&self, at_ns: u64) -> Timestamp {
        let since = i128::from(at_ns) - i128::from(self.at_ns);
        let since = SignedDuration::from_nanos(i64::try_from(since).unwrap_or(0));
        self.event.time.checked_add(since).unwrap_or(self.event.time)
    }
}
