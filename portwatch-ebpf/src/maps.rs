//! All maps. Each has a fixed size. Records that do not fit are counted in [`LOSSES`].

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use portwatch_common::{
    Arguments, Attempt, Awaited, AwaitedPort, CGROUP_PATH, Closed, Connected, Connections, Crowd,
    Culprit, Owner, PORT_NUMBERS, PortUse, Source, SourceUse, Tenant, Watched, loss, port_bit,
};

/// The ring buffer to user space: about 1,600 records.
#[map]
pub static FAILURES: RingBuf = RingBuf::with_byte_size(FAILURES_SIZE as u32, 0);

/// The size of the ring buffer in bytes.
pub const FAILURES_SIZE: u64 = 1 << 20;

/// Attempts in progress, by thread (tracepoint set). LRU, so that attempts without the end of a
/// system call (io_uring, the kernel's own) cannot fill it.
#[map]
pub static ATTEMPTS: LruHashMap<u64, Attempt> = LruHashMap::with_max_entries(4096, 0);

/// The arguments of calls that have not returned (kprobe set). User space makes it larger if that
/// set is used. LRU, for threads that exit after a return was skipped.
#[map]
pub static CALLS: LruHashMap<CallOf, Call> = LruHashMap::with_max_entries(1, 0);

/// A key of [`CALLS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CallOf {
    /// The thread, as `bpf_get_current_pid_tgid` returns it.
    pub thread: u64,
    /// The function.
    pub function: u32,
    /// Zero.
    pub reserved: u32,
}

/// A value of [`CALLS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    /// The first argument, an address; 0 after the return.
    pub first: u64,
    /// The second argument.
    pub second: u64,
}

/// The last bind of each thread, where programs at its end may be skipped (fexit and kprobe set,
/// [`crate::binds`]). User space makes it larger there.
#[map]
pub static BINDS: LruHashMap<u64, Bind> = LruHashMap::with_max_entries(1, 0);

/// A value of [`BINDS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Bind {
    /// Its number among the thread's binds.
    pub number: u64,
    /// 1 until its end is seen.
    pub open: u64,
}

/// A thread's last failed bind that was reported (fexit and kprobe set), so that an outer
/// function does not report it again.
#[map]
pub static REPORTED: LruHashMap<u64, Reported> = LruHashMap::with_max_entries(4096, 0);

/// A value of [`REPORTED`]. It stays in the map if the kernel skips the outer program.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Reported {
    /// The `struct sock`. The next one may be allocated at the same address.
    pub sk: u64,
    /// Its cookie.
    pub cookie: u64,
    /// The bind's [`number`](crate::binds::number).
    pub bind: u64,
    /// The time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
}

/// The last conflicting socket of a thread's bind, and the thread's own socket in that
/// conflict (fexit and kprobe set).
#[map]
pub static CULPRITS: LruHashMap<u64, Met> = LruHashMap::with_max_entries(4096, 0);

/// A value of [`CULPRITS`].
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Met {
    /// The `struct sock` that is being bound. The next one may be allocated at the same
    /// address.
    pub by: u64,
    /// Its cookie.
    pub cookie: u64,
    /// The time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The port of the conflict.
    pub port: u16,
    /// Zero.
    pub reserved: [u8; 6],
    /// The other socket.
    pub culprit: Culprit,
}

/// The descendants of the watched process, by process id.
#[map]
pub static FAMILY: LruHashMap<u32, u8> = LruHashMap::with_max_entries(1, 0);

/// The owners of sockets, by [`Owner::slot`].
#[map]
pub static OWNERS: Array<Owner> = Array::with_max_entries(portwatch_common::OWNERS, 0);

/// The arguments of their processes, by [`Arguments::slot`].
#[map]
pub static ARGUMENTS: Array<Arguments> = Array::with_max_entries(portwatch_common::ARGUMENTS, 0);

/// What is recorded about a port, by [`Port::slot`](portwatch_common::Port::slot).
#[map]
pub static PORTS: Array<PortUse> = Array::with_max_entries(portwatch_common::PORTS, 0);

/// Which kinds of TCP connections there have been, by local port, in any namespace.
#[map]
pub static CONNECTED: Array<Connected> = Array::with_max_entries(PORT_NUMBERS, 0);

/// The options of TCP connections, by [`Connections::slot`].
#[map]
pub static CONNECTIONS: Array<Connections> =
    Array::with_max_entries(portwatch_common::CONNECTIONS, 0);

/// The options of closed TCP connections, by [`Closed::slot`].
#[map]
pub static CLOSED: Array<Closed> = Array::with_max_entries(portwatch_common::CLOSED, 0);

/// The paths of removed control groups, by their id. Each ends with a NUL.
#[map]
pub static GONE_CGROUPS: LruHashMap<u64, [u8; CGROUP_PATH]> =
    LruHashMap::with_max_entries(portwatch_common::GONE_CGROUPS, 0);

/// The paths of those below `user.slice`, so that users cannot use up the entries for services.
#[map]
pub static GONE_OF_USERS: LruHashMap<u64, [u8; CGROUP_PATH]> =
    LruHashMap::with_max_entries(portwatch_common::GONE_OF_USERS, 0);

/// Scratch space to build such a path.
#[map]
pub static PATH: PerCpuArray<[u8; CGROUP_PATH]> = PerCpuArray::with_max_entries(1, 0);

/// How often each source has failed on each processor. User space reads the counts and removes
/// idle sources. If the table is full, the failures of a source count as those of its crowd.
#[map]
pub static SOURCES: PerCpuHashMap<Source, SourceUse> =
    PerCpuHashMap::with_max_entries(portwatch_common::SOURCES, 0);

/// The same counts of crowds. If the table is full, the failures of a crowd count as those of
/// its tenant.
#[map]
pub static CROWDS: PerCpuHashMap<Crowd, SourceUse> =
    PerCpuHashMap::with_max_entries(portwatch_common::CROWDS, 0);

/// The same counts of tenants. If the table is full, the failures of a tenant count as those of
/// its user.
#[map]
pub static TENANTS: PerCpuHashMap<Tenant, SourceUse> =
    PerCpuHashMap::with_max_entries(portwatch_common::CROWDS, 0);

/// The same counts of users.
#[map]
pub static USERS: PerCpuHashMap<u32, SourceUse> =
    PerCpuHashMap::with_max_entries(portwatch_common::CROWDS, 0);

/// The processes that are followed, by their pid.
#[map]
pub static WATCHED: HashMap<u32, Watched> = HashMap::with_max_entries(portwatch_common::WATCHED, 0);

/// The ports that are awaited.
#[map]
pub static AWAITED: HashMap<AwaitedPort, Awaited> =
    HashMap::with_max_entries(portwatch_common::AWAITED, 0);

/// Not 0 while one of these maps may have an entry. User space resets it.
#[map]
pub static FOLLOWING: Array<u32> = Array::with_max_entries(1, 0);

/// How many records of followed processes could not be sent, by CPU.
#[map]
pub static UNFOLLOWED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The inodes that a search of open files searches for.
#[map]
pub static WANTED: HashMap<u64, u8> = HashMap::with_max_entries(portwatch_common::WANTED, 0);

/// The file operations that all sockets share, once a search has found one.
#[map]
pub static SOCKET_OPERATIONS: Array<u64> = Array::with_max_entries(1, 0);

/// Records lost, by [`loss`] index and CPU.
#[map]
pub static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(loss::PLACES, 0);

/// Failed calls that never reached a socket, of threads whose calls something else may have
/// answered, by CPU (tracepoint set).
#[map]
pub static NOT_ATTEMPTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A bit for each port whose failed binds are not wanted. User space sets it.
#[map]
pub static IGNORED_PORTS: Array<u64> = Array::with_max_entries(portwatch_common::PORT_WORDS, 0);

/// Failed binds on such ports, by CPU.
#[map]
pub static IGNORED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Returns whether failed binds on a port are not wanted, and counts this one if so.
#[inline(always)]
pub fn ignores(port: u16) -> bool {
    let (word, bit) = port_bit(port);
    let ignored = IGNORED_PORTS.get(word).is_some_and(|set| set & bit != 0);
    if ignored {
        add_one(&IGNORED, 0);
    }
    ignored
}

/// Counts one loss at `place`.
#[inline(always)]
pub fn count_loss(place: u32) {
    add_one(&LOSSES, place);
}

/// Counts one of [`NOT_ATTEMPTED`].
#[inline(always)]
pub fn count_not_attempted() {
    add_one(&NOT_ATTEMPTED, 0);
}

/// Counts one of [`UNFOLLOWED`].
#[inline(always)]
pub fn count_unfollowed() {
    add_one(&UNFOLLOWED, 0);
}

#[inline(always)]
fn add_one(counts: &PerCpuArray<u64>, at: u32) {
    if let Some(count) = counts.get_ptr_mut(at) {
        // SAFETY: the pointer is to this CPU's own slot.
        unsafe { increment(count) };
    }
}

/// Adds one in a single instruction (`BPF_ATOMIC | BPF_ADD`, on all kernels), because programs
/// that are preempted between a load and a store would lose a count.
///
/// # Safety
/// The counter is valid and only written by this function.
#[inline(always)]
pub unsafe fn increment(counter: *mut u64) {
    // SAFETY: the caller's. Older kernels have no form that returns the value, so it is not used.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}
