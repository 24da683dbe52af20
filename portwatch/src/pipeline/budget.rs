//! Sets the time limit for one failed bind, depending on how much of the enriching thread's
//! time its user has used recently.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use portwatch_common::Tenant;

/// The time that a tenant may use at once before its time limit is reduced.
const AT_ONCE: Duration = Duration::from_millis(1000);
/// A tenant regains one part in this many of the thread's time.
const SHARE: u32 = 4;
/// The factor by which the time limit is then reduced.
const LESS: u32 = 8;
/// The most accounts that are kept. Those with little use are removed first.
const MOST: usize = 1024;

/// Recently used time, by tenant.
#[derive(Default)]
pub struct Budget(HashMap<Tenant, Used>);

#[derive(Clone, Copy)]
struct Used {
    time: Duration,
    at: Instant,
}

impl Used {
    fn left(self, now: Instant) -> Duration {
        self.time.saturating_sub(now.duration_since(self.at) / SHARE)
    }
}

impl Budget {
    /// Returns the part of `patience` that a failed bind of the tenant may use.
    pub fn patience(&self, tenant: Tenant, patience: Duration, now: Instant) -> Duration {
        let used = self.0.get(&account(tenant)).map_or(Duration::ZERO, |used| used.left(now));
        if used < AT_ONCE { patience } else { patience / LESS }
    }

    /// Charges the tenant for time that ended now.
    pub fn charge(&mut self, tenant: Tenant, time: Duration, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, used| used.left(now) > AT_ONCE / 10);
        }
        let account = account(tenant);
        let used = self.0.get(&account).map_or(Duration::ZERO, |used| used.left(now));
        if self.0.len() < MOST || self.0.contains_key(&account) {
            self.0.insert(account, Used { time: used + time, at: now });
        }
    }
}

/// Returns the account of a tenant. A user has one account, however many control groups. Each
/// of root's services has its own.
fn account(tenant: Tenant) -> Tenant {
    match tenant.user {
        0 => tenant,
        user => Tenant { user, ..Tenant::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Duration = Duration::from_millis(250);

    fn tenant(user: u32, cgroup_id: u64) -> Tenant {
        Tenant { user, cgroup_id, reserved: 0 }
    }

    #[test]
    fn whoever_takes_long_is_looked_into_less_for_a_while() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        for group in 0..4 {
            assert_eq!(budget.patience(tenant(1000, 9), WHOLE, now), WHOLE);
            budget.charge(tenant(1000, group), WHOLE, now);
        }
        assert_eq!(budget.patience(tenant(1000, 9), WHOLE, now), WHOLE / LESS);
        assert_eq!(budget.patience(tenant(1001, 9), WHOLE, now), WHOLE, "another user");
        let later = now + AT_ONCE * SHARE;
        assert_eq!(budget.patience(tenant(1000, 9), WHOLE, later), WHOLE, "it comes back");
    }

    #[test]
    fn services_of_root_have_an_account_each() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        budget.charge(tenant(0, 1), AT_ONCE, now);
        assert_eq!(budget.patience(tenant(0, 1), WHOLE, now), WHOLE / LESS);
        assert_eq!(budget.patience(tenant(0, 2), WHOLE, now), WHOLE);
    }

    #[test]
    fn accounts_are_bounded() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        (1..5000).for_each(|user| budget.charge(tenant(user, 1), AT_ONCE, now));
        assert!(budget.0.len() <= MOST);
    }
}
