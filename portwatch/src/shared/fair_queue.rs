//! The queue between the ring and the enriching thread. It is fair between the owners of the
//! failed binds in it: first between users, then between the control groups of one user.
//!
//! The owner that has used the least time is served next (start-time fair queueing), so failed
//! binds whose enrichment takes long delay only the failed binds of the same user. If the queue
//! is full, the newest item of the owner with the most items is dropped.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use portwatch_common::Tenant;

/// A bounded queue of `T`, each of which belongs to a tenant.
pub struct FairQueue<T> {
    most: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// The approximate number of owners without waiting items whose used time is kept.
const MOST_REMEMBERED: usize = 256;

/// The result of waiting for the next item.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// An item and its tenant.
    Item(Tenant, T),
    /// Nothing arrived in time, or `wake` was called.
    Nothing,
    /// The queue is empty and closed.
    Closed,
}

struct State<T> {
    users: Lanes<u32, Lanes<u64, VecDeque<T>>>,
    closed: bool,
    woken: bool,
}

/// Items by owner, with the time that each owner has used.
struct Lanes<K, V> {
    lanes: HashMap<K, Lane<V>>,
    /// The used time of the owner that was served last. A new owner starts with this time.
    floor: Duration,
    waiting: usize,
}

struct Lane<V> {
    used: Duration,
    items: V,
}

/// The content of lanes: items, or lanes again.
trait Waiting: Default {
    fn waiting(&self) -> usize;
}

impl<T> Waiting for VecDeque<T> {
    fn waiting(&self) -> usize {
        self.len()
    }
}

impl<K, V> Default for Lanes<K, V> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), floor: Duration::ZERO, waiting: 0 }
    }
}

impl<K, V> Waiting for Lanes<K, V> {
    fn waiting(&self) -> usize {
        self.waiting
    }
}

impl<K: Copy + Eq + Hash + Ord, V: Waiting> Lanes<K, V> {
    /// Returns the items of `key`. One is about to be added to them.
    fn push(&mut self, key: K) -> &mut V {
        self.waiting += 1;
        let floor = self.floor;
        let lane =
            self.lanes.entry(key).or_insert_with(|| Lane { used: floor, items: V::default() });
        if lane.items.waiting() == 0 {
            // An owner does not save time while it is idle.
            lane.used = lane.used.max(floor);
        }
        &mut lane.items
    }

    /// Returns the items of the next owner. One is about to be removed from them.
    fn pop(&mut self) -> Option<(K, &mut V)> {
        let waits = self.lanes.iter().filter(|(_, lane)| lane.items.waiting() > 0);
        let (&key, _) = waits.min_by_key(|(key, lane)| (lane.used, **key))?;
        self.waiting = self.waiting.saturating_sub(1);
        let lane = self.lanes.get_mut(&key)?;
        self.floor = self.floor.max(lane.used);
        Some((key, &mut lane.items))
    }

    /// Returns the items of the owner with the most items. One is about to be dropped from
    /// them.
    fn longest(&mut self) -> Option<(K, &mut V)> {
        let longest = self.lanes.iter().max_by_key(|(key, lane)| (lane.items.waiting(), **key));
        let (&key, _) = longest.filter(|(_, lane)| lane.items.waiting() > 0)?;
        self.waiting = self.waiting.saturating_sub(1);
        Some((key, &mut self.lanes.get_mut(&key)?.items))
    }

    /// Charges `key` for used time. The charge is kept while others wait.
    fn charge(&mut self, key: K, time: Duration) -> Option<&mut V> {
        if self.waiting == 0 {
            self.lanes.clear();
        } else if self.lanes.len() > MOST_REMEMBERED {
            let floor = self.floor;
            self.lanes.retain(|_, lane| lane.items.waiting() > 0 || lane.used > floor);
        }
        let lane = self.lanes.get_mut(&key)?;
        lane.used += time;
        Some(&mut lane.items)
    }
}

impl<T> FairQueue<T> {
    /// Creates a queue of at most `most` items.
    pub fn new(most: usize) -> Self {
        let state = State { users: Lanes::default(), closed: false, woken: false };
        Self { most, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Appends an item. Returns the item that was dropped because of it, which may be the item
    /// itself.
    pub fn push(&self, tenant: Tenant, item: T) -> Option<T> {
        let mut state = self.lock();
        state.users.push(tenant.user).push(tenant.cgroup_id).push_back(item);
        let dropped = (state.users.waiting > self.most).then(|| {
            let (_, groups) = state.users.longest()?;
            groups.longest()?.1.pop_back()
        });
        drop(state);
        self.changed.notify_one();
        dropped.flatten()
    }

    /// Waits for the next item, for at most `patience` if it is set.
    pub fn pop(&self, patience: Option<Duration>) -> Next<T> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.woken) {
                return Next::Nothing;
            }
            if let Some((user, groups)) = state.users.pop()
                && let Some((cgroup_id, items)) = groups.pop()
                && let Some(item) = items.pop_front()
            {
                return Next::Item(Tenant { user, cgroup_id, reserved: 0 }, item);
            }
            if state.closed {
                return Next::Closed;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Next::Nothing,
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Charges the tenant for the time since its item was removed.
    pub fn charge(&self, tenant: Tenant, time: Duration) {
        if let Some(groups) = self.lock().users.charge(tenant.user, time) {
            groups.charge(tenant.cgroup_id, time);
        }
    }

    /// Returns whether an item of the tenant is waiting.
    pub fn has(&self, tenant: Tenant) -> bool {
        let state = self.lock();
        let groups = state.users.lanes.get(&tenant.user).map(|lane| &lane.items);
        let items = groups.and_then(|groups| groups.lanes.get(&tenant.cgroup_id));
        items.is_some_and(|lane| !lane.items.is_empty())
    }

    /// Wakes the waiting thread without an item.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_one();
    }

    /// Closes the queue: no items are added from now on.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Locks it. The state is valid whatever a panicking thread was doing.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tenant(user: u32, cgroup_id: u64) -> Tenant {
        Tenant { user, cgroup_id, reserved: 0 }
    }

    /// Returns the order of service if every item takes `cost` of its tenant.
    fn served(
        queue: &FairQueue<u32>,
        items: usize,
        cost: impl Fn(Tenant) -> Duration,
    ) -> Vec<Tenant> {
        (0..items)
            .map(|_| {
                let Next::Item(tenant, _) = queue.pop(None) else { panic!("nothing waits") };
                queue.charge(tenant, cost(tenant));
                tenant
            })
            .collect()
    }

    #[test]
    fn a_newcomer_is_next_however_much_waits() {
        let queue = FairQueue::new(4096);
        (0..1000).for_each(|item| assert_eq!(queue.push(tenant(1000, 1), item), None));
        served(&queue, 100, |_| 250 * MS);
        queue.push(tenant(1001, 1), 7);
        let next = served(&queue, 2, |_| MS);
        assert!(next.contains(&tenant(1001, 1)), "{next:?}");
    }

    #[test]
    fn whoever_takes_long_delays_nobody_else() {
        let queue = FairQueue::new(4096);
        for item in 0..20 {
            queue.push(tenant(1000, 1), item);
            queue.push(tenant(1001, 1), item);
        }
        let order = served(&queue, 23, |t| if t.user == 1000 { 250 * MS } else { 10 * MS });
        assert_eq!(order.iter().filter(|tenant| tenant.user == 1001).count(), 20, "{order:?}");
    }

    #[test]
    fn groups_of_one_user_take_turns() {
        let queue = FairQueue::new(4096);
        (0..100).for_each(|item| assert_eq!(queue.push(tenant(0, 1), item), None));
        (0..3).for_each(|item| assert_eq!(queue.push(tenant(0, 2), item), None));
        let order = served(&queue, 6, |_| MS);
        assert_eq!(order.iter().filter(|tenant| tenant.cgroup_id == 2).count(), 3, "{order:?}");
    }

    #[test]
    fn what_is_dropped_is_the_newest_of_whoever_has_most() {
        let queue = FairQueue::new(4);
        (0..4).for_each(|item| assert_eq!(queue.push(tenant(1000, 1), item), None));
        assert_eq!(queue.push(tenant(1000, 1), 4), Some(4));
        assert_eq!(queue.push(tenant(1001, 1), 5), Some(3));
        assert_eq!(queue.push(tenant(1001, 1), 6), Some(2));
    }

    #[test]
    fn a_wake_and_an_end_are_seen() {
        let queue = FairQueue::<u32>::new(4);
        queue.wake();
        assert_eq!(queue.pop(None), Next::Nothing);
        assert_eq!(queue.pop(Some(MS)), Next::Nothing);
        queue.push(tenant(0, 0), 1);
        assert!(queue.has(tenant(0, 0)) && !queue.has(tenant(0, 1)) && !queue.has(tenant(1, 0)));
        queue.close();
        assert_eq!(queue.pop(None), Next::Item(tenant(0, 0), 1));
        assert_eq!(queue.pop(None), Next::Closed);
    }

    #[test]
    fn who_has_nothing_waiting_is_forgotten() {
        let queue = FairQueue::new(4096);
        for user in 0..2000 {
            queue.push(tenant(user, 1), 0);
            served(&queue, 1, |_| MS);
        }
        assert_eq!(queue.lock().users.lanes.len(), 0);
        // One waits all the time, and the others come and go.
        (0..4000).for_each(|item| assert_eq!(queue.push(tenant(5000, 1), item), None));
        for user in 0..2000 {
            queue.push(tenant(user, 1), 0);
            served(&queue, 2, |_| MS);
        }
        assert!(queue.lock().users.lanes.len() <= 2 * MOST_REMEMBERED);
    }

    proptest! {
        /// Every item is served or returned, and each tenant's items keep their order.
        #[test]
        fn items_are_served_or_given_back(pushes in prop::collection::vec((0u32..4, 0u64..3), 0..200)) {
            let queue = FairQueue::new(16);
            let mut dropped = Vec::new();
            for (item, (user, cgroup)) in (0u32..).zip(&pushes) {
                dropped.extend(queue.push(tenant(*user, *cgroup), item));
            }
            queue.close();
            let mut last = HashMap::new();
            let mut all = dropped;
            while let Next::Item(tenant, item) = queue.pop(None) {
                queue.charge(tenant, Duration::from_micros(u64::from(item)));
                prop_assert!(last.insert(tenant, item).is_none_or(|before| before < item));
                all.push(item);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..u32::try_from(pushes.len()).unwrap()).collect::<Vec<_>>());
        }
    }
}
