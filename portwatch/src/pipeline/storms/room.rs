//! Bounded tables that many share: whoever has most in one makes room.

use std::{collections::HashMap, hash::Hash, time::Instant};

use portwatch_common::Tenant;

/// Takes one entry out of a table that has `most`, so that there is room for another: the
/// oldest of the control group with most entries, of the user with most. `owner` gives
/// whose an entry is and how old.
pub fn make_room<K: Clone + Eq + Hash, V>(
    table: &mut HashMap<K, V>,
    most: usize,
    owner: impl Fn(&V) -> (Tenant, Instant),
) -> Option<V> {
    if table.len() < most {
        return None;
    }
    let user = most_frequent(table.values().map(|value| owner(value).0.user))?;
    let of_user = |value: &&V| owner(value).0.user == user;
    let groups = table.values().filter(of_user).map(|value| owner(value).0.cgroup_id);
    let cgroup_id = most_frequent(groups)?;
    let theirs = table.iter().filter(|(_, value)| {
        let tenant = owner(value).0;
        tenant.user == user && tenant.cgroup_id == cgroup_id
    });
    let (key, _) = theirs.min_by_key(|(_, value)| owner(value).1)?;
    let key = key.clone();
    table.remove(&key)
}

fn most_frequent<T: Copy + Eq + Hash + Ord>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: HashMap<T, usize> = HashMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts.into_iter().max_by_key(|&(one, count)| (count, one)).map(|(one, _)| one)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
