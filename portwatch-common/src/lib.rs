//! The records that the kernel side sends to user space.
//!
//! `Pod` is derived, so a type with implicit padding does not compile. The sizes are asserted
//! below, so the two sides cannot differ.

#![no_std]

use bytemuck::{Pod, Zeroable};

mod connection;
mod follow;
mod layout;
mod record;
mod source;

pub use connection::{
    CLOSED, CONNECTIONS, Closed, Connection, Connections, OLDEST_CLOSED, SocketOptions,
};
pub use follow::{
    AWAITED, Awaited, AwaitedPort, BINDS, BINDS_OF_PORT, FORKS, Followed, WATCHED, Watched,
    followed, followed_flag,
};
pub use layout::{ABSENT, Layout, helper};
pub use record::{
    ARGUMENTS, Arguments, Connected, OWNERS, Owner, PORT_NUMBERS, PORT_WORDS, PORTS, Port, PortUse,
    RECORD_CMDLINE_LEN, port_bit,
};
pub use source::{
    CROWD_A_SECOND, CROWDS, Crowd, SENT_A_SECOND, SOURCES, Source, SourceUse, TENANT_A_SECOND,
    Tenant, USER_A_SECOND,
};

/// Bytes of `task_struct.comm`, its final NUL included.
pub const COMM_LEN: usize = 16;
/// Bytes of a command line that are copied in the kernel; longer ones are cut.
pub const CMDLINE_LEN: usize = 512;

/// Values of [`Attempt::stage`].
pub mod stage {
    /// The attempt has been reported or dropped.
    pub const NONE: u8 = 0;
    /// `bind(2)` failed.
    pub const BIND: u8 = 1;
    /// `listen(2)` failed, after `bind(2)` had succeeded.
    pub const LISTEN: u8 = 2;
    /// The thread is between two system calls. An attempt recorded now could be mistaken for an
    /// attempt of the next call (tracepoint set).
    pub const UNPROVABLE: u8 = 3;
}

/// Bits of [`Attempt::flags`]. Each fact has a bit for its value and a bit that says whether
/// the value is known on this kernel.
pub mod flag {
    /// `SO_REUSEADDR` is set.
    pub const REUSEADDR: u16 = 1 << 0;
    /// `SO_REUSEPORT` is set.
    pub const REUSEPORT: u16 = 1 << 1;
    /// `IPV6_V6ONLY` is set.
    pub const V6ONLY: u16 = 1 << 2;
    /// [`REUSEADDR`] and [`REUSEPORT`] could be read.
    pub const REUSE_KNOWN: u16 = 1 << 3;
    /// [`V6ONLY`] could be read.
    pub const V6ONLY_KNOWN: u16 = 1 << 4;
    /// [`Attempt::uid`](super::Attempt::uid) could be read.
    pub const UID_KNOWN: u16 = 1 << 5;
    /// [`Attempt::device`](super::Attempt::device) could be read.
    pub const DEVICE_KNOWN: u16 = 1 << 6;
    /// A socket of the kernel's own: it has no file, so no process can have it open.
    pub const KERNELS_OWN: u16 = 1 << 7;
    /// [`Attempt::address`](super::Attempt::address) could not be read.
    pub const ADDRESS_UNSEEN: u16 = 1 << 8;
    /// The program asked for the port by its number (`SOCK_BINDPORT_LOCK`).
    pub const PORT_ASKED: u16 = 1 << 9;
    /// Whether [`PORT_ASKED`] is known. A bind sets it last, so only the socket of a listener
    /// has this bit.
    pub const PORT_ASKED_KNOWN: u16 = 1 << 10;
}

/// Bits of [`Task::flags`].
pub mod task_flag {
    /// A kernel thread (`PF_KTHREAD`), for example sunrpc probing for a port.
    pub const KERNEL_THREAD: u16 = 1 << 0;
    /// The command line was longer than [`CMDLINE_LEN`](super::CMDLINE_LEN).
    pub const CMDLINE_CUT: u16 = 1 << 1;
}

/// Indexes into the per-CPU array of losses, by stage of the pipeline.
pub mod loss {
    /// The ring buffer had no space for a record.
    pub const RING_FULL: u32 = 0;
    /// A bind failed whose attempt was not recorded (tracepoint set only).
    pub const ATTEMPT_MISSING: u32 = 1;
    /// The attempt could not be recorded (not with the fexit set).
    pub const ATTEMPT_UNRECORDED: u32 = 2;
    /// The kernel did not report the return of a bind, which may have failed.
    pub const RETURN_SKIPPED: u32 = 3;
    /// Number of these indexes.
    pub const PLACES: u32 = 4;
}

/// The socket side of a failed bind: the request and the socket's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Attempt {
    /// The socket's cookie (`sock_gen_cookie`); 0 if not available.
    pub socket_cookie: u64,
    /// The cookie of the socket's network namespace; 0 where unknown.
    pub netns_cookie: u64,
    /// The requested address in network byte order; IPv4 in the first 4 bytes.
    pub address: [u8; 16],
    /// The inode of the socket's network namespace; 0 where unknown.
    pub netns_inode: u32,
    /// The interface of `SO_BINDTODEVICE`; 0 means none.
    pub device: u32,
    /// The socket's owner (`sk_uid`).
    pub uid: u32,
    /// The requested port in host byte order; 0 means any free port.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// See [`flag`].
    pub flags: u16,
    /// See [`stage`].
    pub stage: u8,
    /// Tracepoint set, in its table: 1 if the end of an earlier call of this thread was seen.
    /// Otherwise 0.
    pub ended: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// The blocking socket, as the kernel's conflict check matched it (not with
/// the tracepoint set). All zero if it was not caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Culprit {
    /// Its cookie; 0 if not available.
    pub socket_cookie: u64,
    /// Its inode in sockfs; 0 if no process has it open.
    pub inode: u64,
    /// Its own address, like [`Attempt::address`].
    pub address: [u8; 16],
    /// Its owner.
    pub uid: u32,
    /// The interface of `SO_BINDTODEVICE`; 0 means none.
    pub device: u32,
    /// `AF_INET` or `AF_INET6`; 0 means that there is no blocking socket.
    pub family: u16,
    /// See [`flag`].
    pub flags: u16,
    /// `TCP_*` of include/net/tcp_states.h.
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The most descendants that are recorded, where parents cannot be read from the task.
pub const FAMILY: u32 = 16_384;
/// The most paths of removed control groups that are kept: 0.6 MiB.
pub const GONE_CGROUPS: u32 = 1024;
/// The same limit below `user.slice`, where users create and remove control groups as they
/// like.
pub const GONE_OF_USERS: u32 = 512;
/// The most bytes of such a path that are kept, including its NUL. The path of a container in a
/// pod in a container has some 350 bytes.
pub const CGROUP_PATH: usize = 512;

/// An open socket file, as the search of all tasks' descriptor tables finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OpenFile {
    /// The socket's inode.
    pub inode: u64,
    /// The process.
    pub pid: u32,
    /// The thread that owns the descriptor table.
    pub tid: u32,
    /// The descriptor.
    pub fd: u32,
    /// Zero.
    pub reserved: u32,
}

/// How many sockets one pass over all open files searches for. A failed bind rarely has more
/// sockets on its port, so one pass is enough.
pub const WANTED: u32 = 512;
/// Used instead of an inode: every socket. No file has inode 0.
pub const ANY_SOCKET: u64 = 0;

/// The task whose bind failed. It is read in the kernel, because the task has often exited a
/// millisecond later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Task {
    /// Start of the process (its group leader), in nanoseconds of `CLOCK_BOOTTIME`; 0 where
    /// unknown.
    pub started_ns: u64,
    /// The cgroup2 id.
    pub cgroup_id: u64,
    /// The process (`tgid`) in the initial pid namespace.
    pub pid: u32,
    /// The thread (`pid`) in the initial pid namespace.
    pub tid: u32,
    /// The parent process; 0 where unknown.
    pub ppid: u32,
    /// The real user id.
    pub uid: u32,
    /// See [`task_flag`].
    pub flags: u16,
    /// Valid bytes of `cmdline`; 0 where it could not be read.
    pub cmdline_len: u16,
    /// The user to whose share of the agent it counts, see [`Tenant::user`].
    pub user: u32,
    /// The thread's name, NUL padded.
    pub comm: [u8; COMM_LEN],
    /// The arguments, each ended by a NUL. The bytes after `cmdline_len` have no meaning.
    pub cmdline: [u8; CMDLINE_LEN],
}

/// One failed bind or listen. The ring buffer contains these records and, for what happens
/// after them, [`Followed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BindFailure {
    /// The time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Like [`Watched::own_ns`]; 0 if the process is not followed.
    pub watch_ns: u64,
    /// The socket side.
    pub attempt: Attempt,
    /// The blocking socket.
    pub culprit: Culprit,
    /// The task side.
    pub task: Task,
}

const _: () = assert!(size_of::<Attempt>() == 56);
const _: () = assert!(size_of::<Task>() == 56 + CMDLINE_LEN);
const _: () = assert!(size_of::<Culprit>() == 48);
const _: () = assert!(size_of::<BindFailure>() == 16 + 56 + 48 + 56 + CMDLINE_LEN);
const _: () = assert!(align_of::<BindFailure>() == 8);
const _: () = assert!(size_of::<OpenFile>() == 24);
