//! Bounded tables that tenants share. When a table is full, the tenant with the largest share,
//! in entries or in bytes, loses an entry.

use std::{collections::HashMap, hash::Hash};

use portwatch_common::Tenant;

/// Removes one entry from a table that has `most` entries, to make space for another: the
/// oldest entry of the control group with the most entries, of the user with the most entries.
/// `owner` returns an entry's tenant and age.
pub fn make_room<K: Clone + Eq + Hash, V, A: Ord>(
    table: &mut HashMap<K, V>,
    most: usize,
    owner: impl Fn(&V) -> (Tenant, A),
) -> Option<V> {
    if table.len() < most { None } else { take_of_most(table, |_| 1, owner) }
}

/// Does the same for entries of different sizes: removes one entry if the sum of all sizes is
/// above `most`.
pub fn shrink<K: Clone + Eq + Hash, V, A: Ord>(
    table: &mut HashMap<K, V>,
    most: usize,
    size: impl Fn(&V) -> usize,
    owner: impl Fn(&V) -> (Tenant, A),
) -> Option<V> {
    let all: usize = table.values().map(&size).sum();
    if all <= most { None } else { take_of_most(table, size, owner) }
}

fn take_of_most<K: Clone + Eq + Hash, V, A: Ord>(
    table: &mut HashMap<K, V>,
    size: impl Fn(&V) -> usize,
    owner: impl Fn(&V) -> (Tenant, A),
) -> Option<V> {
    let user = largest(table.values().map(|value| (owner(value).0.user, size(value))))?;
    let of_user = |value: &&V| owner(value).0.user == user;
    let groups = table.values().filter(of_user);
    let cgroup_id = largest(groups.map(|value| (owner(value).0.cgroup_id, size(value))))?;
    let theirs = table.iter().filter(|(_, value)| {
        let tenant = owner(value).0;
        tenant.user == user && tenant.cgroup_id == cgroup_id
    });
    let (key, _) = theirs.min_by_key(|(_, value)| owner(value).1)?;
    let key = key.clone();
    table.remove(&key)
}

/// Returns the owner with the largest sum of sizes.
fn largest<T: Copy + Eq + Hash + Ord>(all: impl Iterator<Item = (T, usize)>) -> Option<T> {
    let mut sums: HashMap<T, usize> = HashMap::new();
    all.for_each(|(one, size)| *sums.entry(one).or_default() += size);
    sums.into_iter().max_by_key(|&(one, sum)| (sum, one)).map(|(one, _)| one)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn whoever_has_most_makes_room_by_their_oldest() {
        let begin = Instant::now();
        let entry = |user, cgroup_id, ms| {
            (Tenant { user, cgroup_id, reserved: 0 }, begin + Duration::from_millis(ms))
        };
        let mut table: HashMap<u32, (Tenant, Instant)> = HashMap::from([
            (1, entry(0, 7, 0)),
            (2, entry(0, 8, 1)),
            (3, entry(1000, 9, 2)),
            (4, entry(1000, 8, 3)),
            (5, entry(1000, 8, 4)),
        ]);
        assert!(make_room(&mut table, 6, |value| *value).is_none(), "there is room");
        assert!(make_room(&mut table, 5, |value| *value).is_some());
        assert!(!table.contains_key(&4) && table.len() == 4, "{table:?}");
    }

    #[test]
    fn whoever_has_most_bytes_makes_room_though_others_have_more_entries() {
        let begin = Instant::now();
        let entry = |user, bytes, ms| {
            let tenant = Tenant { user, cgroup_id: 1, reserved: 0 };
            (bytes, (tenant, begin + Duration::from_millis(ms)))
        };
        let mut table: HashMap<u32, (usize, (Tenant, Instant))> = HashMap::from([
            (1, entry(0, 10, 0)),
            (2, entry(0, 10, 1)),
            (3, entry(0, 10, 2)),
            (4, entry(1000, 60, 4)),
            (5, entry(1000, 1, 3)),
        ]);
        let mut within = |most| shrink(&mut table, most, |it| it.0, |it| it.1).map(|it| it.0);
        assert_eq!(within(91), None, "there is room");
        assert_eq!([within(90), within(90)], [Some(1), None], "their oldest");
        assert_eq!([within(40), within(40)], [Some(60), None]);
    }
}
