//! Rate limits: failed binds above a source's share of the ring are counted and not sent.

use bytemuck::{Pod, Zeroable};

use crate::Attempt;

/// A process that fails at one address. Above the limit, its failed binds are counted and not
/// sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Source {
    /// As in [`Attempt`].
    pub netns_cookie: u64,
    /// As in [`Attempt`].
    pub address: [u8; 16],
    /// As in [`Attempt`].
    pub netns_inode: u32,
    /// The process.
    pub pid: u32,
    /// As in [`Attempt`].
    pub port: u16,
    /// As in [`Attempt`].
    pub family: u16,
    /// As in [`Attempt`].
    pub protocol: u16,
    /// As in [`Attempt`].
    pub stage: u8,
    /// Zero.
    pub reserved: u8,
}

impl Source {
    /// Returns the source of an attempt by the process `pid`.
    #[inline(always)]
    pub fn of(attempt: &Attempt, pid: u32) -> Self {
        Self {
            netns_cookie: attempt.netns_cookie,
            address: attempt.address,
            netns_inode: attempt.netns_inode,
            pid,
            port: attempt.port,
            family: attempt.family,
            protocol: attempt.protocol,
            stage: attempt.stage,
            reserved: 0,
        }
    }
}

/// Usage by a [`Source`], a [`Crowd`], a [`Tenant`] or a user on one processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SourceUse {
    /// Start of its current second, in nanoseconds of `CLOCK_BOOTTIME`.
    pub second_ns: u64,
    /// Records sent in that second.
    pub sent: u64,
    /// The number of failed binds that were only counted, since the beginning.
    pub counted: u64,
    /// The time of the last of them, or of one that was counted elsewhere because this was not
    /// fresh.
    pub last_ns: u64,
    /// Its tenant. The processor that saw it first writes it; it is zero on the others.
    pub tenant: Tenant,
}

impl SourceUse {
    /// For this long after its last use, an entry is not removed. Failed binds are counted only
    /// in entries that were used within this time, so that none is counted in an entry that user
    /// space is about to remove.
    pub const FRESH_NS: u64 = 1_000_000_000;

    /// Returns whether it was used within [`Self::FRESH_NS`] before `now_ns`.
    #[inline(always)]
    pub fn is_fresh(&self, now_ns: u64) -> bool {
        let is_recent = |at_ns: u64| now_ns.wrapping_sub(at_ns) < Self::FRESH_NS;
        is_recent(self.second_ns) || is_recent(self.last_ns)
    }
}

/// A control group of a user. Shares are fair between users first, and then between the control
/// groups of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Tenant {
    /// The cgroup2 id.
    pub cgroup_id: u64,
    /// The real user id. In a user namespace that an unprivileged user created, it is that
    /// user's id, because such a user has many ids in there.
    pub user: u32,
    /// Zero.
    pub reserved: u32,
}

/// Processes of one tenant that fail at the same address. A crash loop has a new process each
/// time and sends as many records as one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Crowd {
    /// Tenant of the processes.
    pub tenant: Tenant,
    /// Their address. The process in it is 0.
    pub source: Source,
}

impl Crowd {
    /// Returns the crowd that `source` is a part of.
    #[inline(always)]
    pub fn of(tenant: Tenant, source: &Source) -> Self {
        Self { tenant, source: Source { pid: 0, ..*source } }
    }
}

/// The most sources that are counted separately. Failed binds of other sources count as their
/// crowd's.
pub const SOURCES: u32 = 8192;
/// The most crowds and tenants that are counted separately.
pub const CROWDS: u32 = 4096;
/// How many records a source may send in a second from one processor.
pub const SENT_A_SECOND: u64 = 32;
/// How many records the new sources of a crowd may send in a second, from all processors.
pub const CROWD_A_SECOND: u64 = 128;
/// How many records a tenant may send in a second, from all processors.
pub const TENANT_A_SECOND: u64 = 2048;
/// How many records a user other than root may send in a second, from all processors.
pub const USER_A_SECOND: u64 = 2048;

const _: () = assert!(size_of::<Source>() == 40);
const _: () = assert!(size_of::<Tenant>() == 16);
const _: () = assert!(size_of::<Crowd>() == 56);
const _: () = assert!(size_of::<SourceUse>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_fresh_for_a_second_after_either_use() {
        const NOW: u64 = 9_000_000_000;
        const OLD: u64 = NOW - SourceUse::FRESH_NS;
        let is_fresh = |second_ns, last_ns| {
            SourceUse { second_ns, last_ns, ..SourceUse::zeroed() }.is_fresh(NOW)
        };
        assert!(!is_fresh(0, 0), "not used on this processor");
        assert!(!is_fresh(OLD, OLD), "user space may be about to remove it");
        assert!(is_fresh(OLD + 1, 0) && is_fresh(0, OLD + 1) && is_fresh(NOW, 0));
    }
}
