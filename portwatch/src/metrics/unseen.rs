//! Counts lost records of followed processes. If there are any, an outcome may be wrong.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use aya::Ebpf;
use portwatch_common::Tenant;

use crate::kernel::tally::{Tally, UNFOLLOWED};

/// How many users are counted separately. If there are more, several share a count.
const USERS: usize = 64;

/// The counts.
pub struct Unseen {
    /// Records for which the ring buffer had no space.
    ring: OnceLock<Option<Tally>>,
    /// Records for which the queue had no space, by user.
    queue: [AtomicU64; USERS],
}

impl Default for Unseen {
    fn default() -> Self {
        Self { ring: OnceLock::new(), queue: [const { AtomicU64::new(0) }; USERS] }
    }
}

impl Unseen {
    /// Includes the lost records of the loaded object's ring buffer.
    pub fn of_ring(&self, ebpf: &Ebpf) {
        self.ring.get_or_init(|| Tally::of(ebpf, UNFOLLOWED));
    }

    /// Counts a record that the queue dropped.
    pub fn add(&self, tenant: Tenant) {
        self.of(tenant).fetch_add(1, Relaxed);
    }

    /// Returns how many lost records may belong to a tenant.
    pub fn by(&self, tenant: Tenant) -> u64 {
        self.in_ring() + self.of(tenant).load(Relaxed)
    }

    /// Returns how many records were lost.
    pub fn total(&self) -> u64 {
        self.in_ring() + self.queue.iter().map(|count| count.load(Relaxed)).sum::<u64>()
    }

    fn of(&self, tenant: Tenant) -> &AtomicU64 {
        let place = usize::try_from(tenant.user).unwrap_or(0) % USERS;
        // The remainder is always an index of the array.
        self.queue.get(place).unwrap_or(&self.queue[0])
    }

    fn in_ring(&self) -> u64 {
        let ring = self.ring.get().and_then(Option::as_ref);
        ring.and_then(Tally::count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_losses_of_one_user_are_not_those_of_another() {
        let (unseen, one) = (Unseen::default(), Tenant { user: 1000, ..Tenant::default() });
        unseen.add(one);
        let other = Tenant { user: 1001, ..one };
        assert_eq!((unseen.by(one), unseen.by(other), unseen.total()), (1, 0, 1));
    }
}
