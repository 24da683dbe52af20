//! Failed binds that the kernel side has only counted, because of a rate limit.

use std::{collections::HashMap as Known, fmt::Debug, hash::Hash};

use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuHashMap},
};
use bytemuck::{Pod, Zeroable as _};
use portwatch_common::{Crowd, Source, SourceUse, Tenant};

use super::{KernelError, records::Shared, take_map};

/// An entry that was not used for this time is removed. After this time no program on the
/// kernel side can still have a pointer to it, and a source that fails again starts by sending
/// records.
const IDLE_NS: u64 = 3_000_000_000;
/// The same limit while a table is more than half full.
const IDLE_SOON_NS: u64 = 2_000_000_000;

// Programs count only in fresh entries, and one that has found a fresh entry has a second to end.
// What was counted after the last look at an entry would be lost with the entry.
const _: () = assert!(IDLE_SOON_NS >= 2 * SourceUse::FRESH_NS && IDLE_NS >= IDLE_SOON_NS);

/// Failed binds that were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whose failed binds they are.
    pub by: CountedBy,
    /// The tenant to whose share they count.
    pub tenant: Tenant,
    /// How many since the last collection.
    pub count: u64,
    /// Time of the last of them, in nanoseconds of `CLOCK_BOOTTIME`.
    pub last_ns: u64,
}

/// What is known about failed binds that were only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// One process at one address.
    Source(Source),
    /// Processes of one tenant at one address.
    Crowd(Crowd),
    /// Only the tenant is known.
    Tenant,
}

/// The counts of the loaded object.
pub struct Limits {
    sources: Table<Source>,
    crowds: Table<Crowd>,
    tenants: Table<Tenant>,
    users: Table<u32>,
}

impl Limits {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// The object lacks one.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            sources: Table::open(ebpf, "SOURCES")?,
            crowds: Table::open(ebpf, "CROWDS")?,
            tenants: Table::open(ebpf, "TENANTS")?,
            users: Table::open(ebpf, "USERS")?,
        })
    }

    /// Returns what was counted since the last call, and whether no entry is left that could
    /// count more.
    pub fn collect(&mut self, now_ns: u64) -> (Vec<Counted>, bool) {
        let mut all = Vec::new();
        let mut take = |by, SourceUse { counted: count, last_ns, tenant, .. }: SourceUse| {
            all.push(Counted { by, tenant, count, last_ns });
        };
        self.sources.collect(now_ns, |source, used| take(CountedBy::Source(source), used));
        self.crowds.collect(now_ns, |crowd, used| take(CountedBy::Crowd(crowd), used));
        self.tenants.collect(now_ns, |_, used| take(CountedBy::Tenant, used));
        self.users.collect(now_ns, |_, used| take(CountedBy::Tenant, used));
        let empty = self.sources.seen.is_empty()
            && self.crowds.seen.is_empty()
            && self.tenants.seen.is_empty()
            && self.users.seen.is_empty();
        (all, empty)
    }
}

/// One table of counts, and what has been read from it so far.
struct Table<K: Pod> {
    map: PerCpuHashMap<MapData, Shared<K>, Shared<SourceUse>>,
    most: usize,
    seen: Known<K, u64>,
}

impl<K: Pod + Eq + Hash + Debug> Table<K> {
    fn open(ebpf: &mut Ebpf, name: &str) -> Result<Self, KernelError> {
        let most = match ebpf.map(name) {
            Some(Map::PerCpuHashMap(data)) => data.info().map_or(0, |info| info.max_entries()),
            _ => 0,
        };
        Ok(Self { map: take_map(ebpf, name)?, most: most as usize, seen: Known::new() })
    }

    /// Passes on what each entry has newly counted, and removes idle entries.
    fn collect(&mut self, now_ns: u64, mut take: impl FnMut(K, SourceUse)) {
        let idle_ns = if self.seen.len() > self.most / 2 { IDLE_SOON_NS } else { IDLE_NS };
        let mut idle = Vec::new();
        for entry in self.map.iter() {
            // An entry that was removed in the meantime does not exist. The remaining entries
            // are read at the next collection.
            let Ok((Shared(key), processors)) = entry else { break };
            let used = sum(processors.iter().map(|Shared(own)| own));
            if let Some(new) = newly(&mut self.seen, key, used) {
                take(key, new);
            } else if now_ns.saturating_sub(used.second_ns.max(used.last_ns)) > idle_ns {
                idle.push(key);
            }
        }
        for key in idle {
            // The walk takes a while. Counts added during it would be lost with the entry, so
            // each entry is read again just before its removal.
            let Ok(processors) = self.map.get(&Shared(key), 0) else { continue };
            let used = sum(processors.iter().map(|Shared(own)| own));
            if let Some(new) = newly(&mut self.seen, key, used) {
                take(key, new);
                continue;
            }
            if let Err(error) = self.map.remove(&Shared(key)) {
                tracing::debug!(%error, "an idle entry could not be removed");
                continue;
            }
            self.seen.remove(&key);
        }
    }
}

/// Returns the sum over all processors.
fn sum<'a>(processors: impl Iterator<Item = &'a SourceUse>) -> SourceUse {
    let mut used = SourceUse::zeroed();
    for own in processors {
        used.counted += own.counted;
        used.last_ns = used.last_ns.max(own.last_ns);
        used.second_ns = used.second_ns.max(own.second_ns);
        if own.tenant != Tenant::default() {
            used.tenant = own.tenant;
        }
    }
    used
}

/// Returns what was counted since the last collection, or `None` if nothing was.
fn newly<K: Eq + Hash>(seen: &mut Known<K, u64>, key: K, used: SourceUse) -> Option<SourceUse> {
    let before = seen.insert(key, used.counted).unwrap_or(0);
    let counted = used.counted.saturating_sub(before);
    (counted > 0).then_some(SourceUse { counted, ..used })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counted: u64, last_ns: u64) -> SourceUse {
        SourceUse { counted, last_ns, ..SourceUse::zeroed() }
    }

    #[test]
    fn what_came_between_two_looks_is_new_once() {
        let mut seen = Known::new();
        let mut look = |used| newly(&mut seen, "key", used).map(|new| new.counted);
        assert_eq!(look(counted(5, 1)), Some(5));
        assert_eq!(look(counted(5, 1)), None, "idle, and to be removed");
        assert_eq!(look(counted(7, 2)), Some(2), "counted while others were looked at");
        assert_eq!(look(counted(7, 2)), None);
    }

    #[test]
    fn processors_have_a_part_each() {
        let tenant = Tenant { user: 1000, cgroup_id: 7, reserved: 0 };
        let own = SourceUse { tenant, ..counted(1, 9) };
        let sum = sum([counted(2, 3), own, counted(4, 5)].iter());
        assert_eq!((sum.counted, sum.last_ns, sum.tenant), (7, 9, tenant));
    }
}
