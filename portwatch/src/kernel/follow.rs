//! The kernel's tables of processes and ports that are followed after a failed bind. The kernel
//! side fills them. This module removes old entries, and entries that exceed a user's share.

use std::{
    collections::{HashMap as Known, HashSet},
    hash::Hash,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use portwatch_common::{AWAITED, Awaited, AwaitedPort, Port, Tenant, WATCHED, Watched};

use super::{KernelError, records::Shared, take_map};
use crate::decode::{Did, RawFailure, RawFollowed};

/// How long a failed bind may wait in the queue.
const SLACK: Duration = Duration::from_secs(30);
/// A user, or a control group of root, gets this fraction of each table.
const PART: usize = 4;

/// The maps of the loaded object, and how much of them each user uses.
pub struct Following {
    watched: HashMap<MapData, u32, Shared<Watched>>,
    awaited: HashMap<MapData, Shared<AwaitedPort>, Shared<Awaited>>,
    active: Array<MapData, u32>,
    processes: Shares<u32>,
    ports: Shares<AwaitedPort>,
}

impl Following {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// The object lacks one.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            watched: take_map(ebpf, "WATCHED")?,
            awaited: take_map(ebpf, "AWAITED")?,
            active: take_map(ebpf, "FOLLOWING")?,
            processes: Shares::of(WATCHED),
            ports: Shares::of(AWAITED),
        })
    }

    /// Returns whether a failing process is within its user's share. If not, it is not followed.
    pub fn admits(&mut self, raw: &RawFailure) -> bool {
        let tenant = raw.tenant();
        let port = Port {
            netns_cookie: raw.source.netns_cookie,
            port: raw.source.port,
            protocol: raw.source.protocol,
            reserved: 0,
        };
        let port = AwaitedPort { port, user: tenant.user, reserved: 0 };
        let process = self.processes.admit(tenant, raw.task.pid);
        if !process {
            forget(&mut self.watched, &raw.task.pid);
        }
        let awaited = self.ports.admit(tenant, port);
        if !awaited {
            forget(&mut self.awaited, &Shared(port));
        }
        process && awaited
    }

    /// Accounts for a process that was started or has exited. If a started process exceeds its
    /// user's share, it is not followed, and the record says so.
    pub fn note(&mut self, raw: &mut RawFollowed) {
        match &mut raw.did {
            Did::Fork { child, followed } => {
                *followed = self.processes.admit(raw.tenant, *child);
                if !*followed {
                    forget(&mut self.watched, child);
                }
            }
            Did::Exit { .. } => self.processes.remove(raw.tenant, raw.pid),
            Did::Bind(_) => {}
        }
    }

    /// Removes processes whose last failed bind is longer ago than `window`, and their
    /// descendants. If nothing is left, the kernel side stops following until the next failed
    /// bind. Returns whether something is left.
    pub fn sweep(&mut self, now_ns: u64, window: Duration) -> bool {
        let most = u64::try_from((window + SLACK).as_nanos()).unwrap_or(u64::MAX);
        let is_old = |last_ns: u64| now_ns.saturating_sub(last_ns) > most;
        // An entry that is removed in the meantime may end the walk. The remaining entries are
        // read next time.
        let processes: Known<u32, Watched> =
            self.watched.iter().map_while(Result::ok).map(|(pid, Shared(it))| (pid, it)).collect();
        let needed = |watched: &Watched| {
            let root = processes.get(&watched.root).filter(|it| it.own_ns == watched.root_ns);
            !is_old(watched.last_ns)
                || root.is_some_and(|root| watched.root_ns != 0 && !is_old(root.last_ns))
        };
        self.processes.clear();
        for (pid, watched) in &processes {
            if needed(watched) {
                self.processes.admit(watched.tenant, *pid);
            } else {
                forget(&mut self.watched, pid);
            }
        }
        let ports: Vec<_> = self.awaited.iter().map_while(Result::ok).collect();
        self.ports.clear();
        for (Shared(port), Shared(awaited)) in ports {
            if is_old(awaited.last_ns) {
                forget(&mut self.awaited, &Shared(port));
            } else {
                self.ports.admit(awaited.tenant, port);
            }
        }
        if !(self.processes.is_empty() && self.ports.is_empty()) {
            return true;
        }
        self.look(false);
        // A bind may have failed just now. Whether its process is running is checked at the end
        // of the window.
        let left = self.watched.keys().next().is_some();
        if left {
            self.look(true);
        }
        left
    }

    /// Switches following on or off on the kernel side.
    fn look(&mut self, yes: bool) {
        if let Err(error) = self.active.set(0, u32::from(yes), 0) {
            tracing::debug!(%error, "the kernel side could not be told whether to follow");
        }
    }
}

/// Removes an entry that the kernel side may already have removed.
fn forget<K: aya::Pod, V: aya::Pod>(table: &mut HashMap<MapData, K, V>, key: &K) {
    match table.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => {}
        // The kernel returns this error for an entry that does not exist.
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(%error, "what is not followed could not be removed"),
    }
}

/// How much of a table each user uses.
struct Shares<K> {
    most: usize,
    used: Known<Tenant, HashSet<K>>,
}

impl<K: Eq + Hash> Shares<K> {
    fn of(entries: u32) -> Self {
        Self { most: usize::try_from(entries).unwrap_or(usize::MAX) / PART, used: Known::new() }
    }

    /// Adds an entry, if there is space for it. Returns whether it is counted.
    fn admit(&mut self, tenant: Tenant, key: K) -> bool {
        let used = self.used.entry(account(tenant)).or_default();
        used.contains(&key) || used.len() < self.most && used.insert(key)
    }

    fn remove(&mut self, tenant: Tenant, key: K) {
        let account = account(tenant);
        if let Some(used) = self.used.get_mut(&account) {
            used.remove(&key);
            if used.is_empty() {
                self.used.remove(&account);
            }
        }
    }

    fn clear(&mut self) {
        self.used.clear();
    }

    fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

/// Returns the owner of a share: a user, however many control groups it has, or one of root's
/// control groups.
fn account(tenant: Tenant) -> Tenant {
    match tenant.user {
        0 => tenant,
        user => Tenant { user, ..Tenant::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(user: u32, cgroup_id: u64) -> Tenant {
        Tenant { user, cgroup_id, reserved: 0 }
    }

    #[test]
    fn a_user_has_one_share_however_many_groups() {
        let mut shares = Shares::of(8);
        let admitted =
            (0..10u32).filter(|&pid| shares.admit(tenant(1000, pid.into()), pid)).count();
        assert_eq!(admitted, 8 / PART);
        assert!(shares.admit(tenant(1000, 7), 0), "it is there already");
        assert!(shares.admit(tenant(1001, 0), 77), "another user");
        shares.remove(tenant(1000, 7), 0);
        assert!(shares.admit(tenant(1000, 3), 5));
        assert!(!shares.admit(tenant(1000, 3), 6));
        assert!((0..4).all(|group| shares.admit(tenant(0, group), 100)), "services of root");
    }
}
