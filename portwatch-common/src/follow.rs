//! Outcomes of failed binds: which processes the kernel side follows after a failed bind, and
//! what it sends about them.

use bytemuck::{Pod, Zeroable};

use crate::{COMM_LEN, Port, Tenant};

/// The most processes that are followed: failing processes and those that they have started.
/// 0.7 MiB of kernel memory.
pub const WATCHED: u32 = 8192;
/// The most ports that are awaited, each for one user: 0.6 MiB.
pub const AWAITED: u32 = 8192;

/// How many successful binds of a process are sent after each of its failed binds.
pub const BINDS: u16 = 8;
/// How many successful binds of a user at one port are sent after each failed bind.
pub const BINDS_OF_PORT: u16 = 16;
/// How many forks of a process and its descendants are followed.
pub const FORKS: u16 = 64;

/// A process that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Watched {
    /// Time of its first failed bind, in nanoseconds of `CLOCK_BOOTTIME`. Together with the pid
    /// it identifies the process. 0 for a process whose own binds have not failed.
    pub own_ns: u64,
    /// The same time of the failing process from which it descends; 0 if there is none.
    pub root_ns: u64,
    /// Time of its last failed bind, or of its start.
    pub last_ns: u64,
    /// Its start, in nanoseconds of `CLOCK_BOOTTIME`; 0 where unknown.
    pub started_ns: u64,
    /// The tenant to whose share it counts.
    pub tenant: Tenant,
    /// The pid of the failing process from which it descends.
    pub root: u32,
    /// Successful binds that may still be sent.
    pub binds_left: u16,
    /// Forks that may still be followed.
    pub forks_left: u16,
    /// See [`followed_flag`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// A port at which a bind failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AwaitedPort {
    /// The port; 0 means any.
    pub port: Port,
    /// The failing user, see [`Tenant::user`]. Binds of other users are not sent.
    pub user: u32,
    /// Zero.
    pub reserved: u32,
}

/// The value for such a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Awaited {
    /// Time of the last failed bind.
    pub last_ns: u64,
    /// The tenant to whose share it counts.
    pub tenant: Tenant,
    /// Successful binds that may still be sent.
    pub binds_left: u16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Values of [`Followed::kind`].
pub mod followed {
    /// A bind or listen succeeded.
    pub const BOUND: u8 = 1;
    /// The process has started another.
    pub const FORKED: u8 = 2;
    /// The last thread of the process exits.
    pub const EXITED: u8 = 3;
}

/// Bits of [`Followed::flags`] and [`Watched::flags`].
pub mod followed_flag {
    /// It has started processes that are not followed.
    pub const MORE_FORKS: u32 = 1 << 0;
}

/// An action of a followed process. In the ring its size distinguishes it from a
/// [`BindFailure`](crate::BindFailure).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Followed {
    /// Time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Like [`Watched::own_ns`]; 0 also for a process that is not followed itself.
    pub own_ns: u64,
    /// Like [`Watched::root_ns`].
    pub root_ns: u64,
    /// The tenant to whose share it counts: that of the failed bind.
    pub tenant: Tenant,
    /// The current cgroup2 id of the process.
    pub cgroup_id: u64,
    /// Of the socket that was bound, as in [`Attempt`](crate::Attempt).
    pub netns_cookie: u64,
    /// As in [`Attempt`](crate::Attempt).
    pub address: [u8; 16],
    /// As in [`Attempt`](crate::Attempt).
    pub netns_inode: u32,
    /// The process.
    pub pid: u32,
    /// Like [`Watched::root`].
    pub root: u32,
    /// The child's pid, or the exit code as wait(2) returns it.
    pub value: u32,
    /// See [`followed_flag`].
    pub flags: u32,
    /// As in [`Attempt`](crate::Attempt).
    pub port: u16,
    /// As in [`Attempt`](crate::Attempt).
    pub family: u16,
    /// As in [`Attempt`](crate::Attempt).
    pub protocol: u16,
    /// As in [`Attempt`](crate::Attempt).
    pub stage: u8,
    /// See [`followed`].
    pub kind: u8,
    /// The parent of a process that binds; 0 where unknown.
    pub parent: u32,
    /// The thread's name, NUL padded.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Watched>() == 64);
const _: () = assert!(size_of::<AwaitedPort>() == 24);
const _: () = assert!(size_of::<Awaited>() == 32);
const _: () = assert!(size_of::<Followed>() == 120);
const _: () = assert!(size_of::<Followed>() != size_of::<crate::BindFailure>());
