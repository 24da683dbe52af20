//! The records that cross from the kernel side to the user side.
//!
//! `Pod` is derived, so a type with implicit padding does not compile; the
//! sizes are asserted below, so neither side can drift from the other.

#![no_std]

use bytemuck::{Pod, Zeroable};

mod source;

pub use source::{SENT_A_SECOND, SOURCES, Source, SourceUse};

/// Bytes of `task_struct.comm`, its final NUL included.
pub const COMM_LEN: usize = 16;
/// Bytes of a command line that are copied in the kernel; longer ones are cut.
pub const CMDLINE_LEN: usize = 512;

/// Values of [`Attempt::stage`].
pub mod stage {
    /// `bind(2)` was refused.
    pub const BIND: u8 = 1;
    /// `listen(2)` was refused, after `bind(2)` had passed.
    pub const LISTEN: u8 = 2;
}

/// Bits of [`Attempt::flags`]. Each fact has a bit for its value and one that
/// says whether the value is known on this kernel.
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
    /// A socket of the kernel's own: no file goes with it, so that no process
    /// can have it open.
    pub const KERNELS_OWN: u16 = 1 << 7;
}

/// Bits of [`Task::flags`].
pub mod task_flag {
    /// A kernel thread (`PF_KTHREAD`), for example sunrpc probing for a port.
    pub const KERNEL_THREAD: u16 = 1 << 0;
    /// The command line was longer than [`CMDLINE_LEN`](super::CMDLINE_LEN).
    pub const CMDLINE_CUT: u16 = 1 << 1;
}

/// Indexes into the per-CPU array of losses, by the place where they happen.
pub mod loss {
    /// The ring buffer had no room for a record.
    pub const RING_FULL: u32 = 0;
    /// A refusal whose attempt was not on record (tracepoint set only).
    pub const ATTEMPT_MISSING: u32 = 1;
    /// The attempt could not be recorded (tracepoint set only).
    pub const ATTEMPT_UNRECORDED: u32 = 2;
    /// How many places there are.
    pub const PLACES: u32 = 3;
}

/// The socket side of a refusal: what was asked of the kernel, and with which
/// options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Attempt {
    /// The socket's cookie (`sock_gen_cookie`); 0 where it cannot be had.
    pub socket_cookie: u64,
    /// The cookie of the socket's network namespace; 0 where unknown.
    pub netns_cookie: u64,
    /// The requested address in network byte order; IPv4 in the first 4 bytes.
    pub address: [u8; 16],
    /// The inode of the socket's network namespace; 0 where unknown.
    pub netns_inode: u32,
    /// The interface of `SO_BINDTODEVICE`; 0 for none.
    pub device: u32,
    /// The socket's owner (`sk_uid`).
    pub uid: u32,
    /// The requested port in host byte order; 0 asks for any.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// See [`flag`].
    pub flags: u16,
    /// See [`stage`].
    pub stage: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The socket that refused, as the kernel's own conflict check had it in hand
/// (fexit set only). All zero where it was not caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Culprit {
    /// Its cookie; 0 where it cannot be had.
    pub socket_cookie: u64,
    /// Its inode in sockfs; 0 where no process has it.
    pub inode: u64,
    /// Its own address, as [`Attempt::address`].
    pub address: [u8; 16],
    /// Its owner.
    pub uid: u32,
    /// The interface of `SO_BINDTODEVICE`; 0 for none.
    pub device: u32,
    /// `AF_INET` or `AF_INET6`; 0 means that there is no culprit.
    pub family: u16,
    /// See [`flag`].
    pub flags: u16,
    /// `TCP_*` of include/net/tcp_states.h.
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Bytes of a command line that are kept on record.
pub const RECORD_CMDLINE_LEN: usize = 128;

/// Who bound a socket, or listens on it: written when the kernel has agreed, and
/// kept beyond the socket's end, as far as the map's bound allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Owner {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`; 0 if before the agent's start.
    pub at_ns: u64,
    /// When a listener closed; 0 while it is open, and for other sockets.
    pub left_ns: u64,
    /// Start of the process, nanoseconds of `CLOCK_BOOTTIME`; 0 where unknown.
    pub started_ns: u64,
    /// The process's cgroup2 id.
    pub cgroup_id: u64,
    /// What it has bound.
    pub port: Port,
    /// The address that it has bound, as [`Attempt::address`].
    pub address: [u8; 16],
    /// `AF_INET` or `AF_INET6`; 0 where the address is not known.
    pub family: u16,
    /// Zero.
    pub reserved: [u8; 6],
    /// The process.
    pub pid: u32,
    /// Its parent; 0 where unknown.
    pub ppid: u32,
    /// Its real user id.
    pub uid: u32,
    /// The socket's options then, see [`flag`].
    pub flags: u16,
    /// Valid bytes of `cmdline`.
    pub cmdline_len: u16,
    /// The thread's name, NUL padded.
    pub comm: [u8; COMM_LEN],
    /// The beginning of the arguments, each ended by a NUL.
    pub cmdline: [u8; RECORD_CMDLINE_LEN],
}

/// A port of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// The namespace's cookie.
    pub netns_cookie: u64,
    /// The port in host byte order.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Zero.
    pub reserved: u32,
}

/// What is on record of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortUse {
    /// The cookie of the last socket that was bound to it.
    pub last_cookie: u64,
    /// The one before that; 0 if there was none.
    pub previous_cookie: u64,
    /// Sockets that were bound to it and are not known to have closed: no fewer
    /// than there are.
    pub bound: u32,
    /// Zero.
    pub reserved: u32,
}

/// What TCP connections a port has had, in any namespace. Each byte is 0 or 1 and
/// is written by itself, so that two processors cannot undo each other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Connected {
    /// This end began them: the port was their source.
    pub outgoing: u8,
    /// The other end began them, and a listener took them.
    pub accepted: u8,
    /// They are older than the agent.
    pub older: u8,
}

/// Sockets whose owner is on record: 4 MiB of kernel memory.
pub const OWNERS: u32 = 16_384;
/// Ports that are on record: 6 MiB.
pub const PORTS: u32 = 65_536;
/// All port numbers.
pub const PORT_NUMBERS: u32 = 65_536;

/// An open socket file, as the search of all tasks' tables finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OpenFile {
    /// The socket's inode.
    pub inode: u64,
    /// The process.
    pub pid: u32,
    /// The thread whose table it is in.
    pub tid: u32,
    /// The descriptor.
    pub fd: u32,
    /// Zero.
    pub reserved: u32,
}

/// Sockets that one search looks for.
pub const WANTED: u32 = 64;
/// In place of an inode: every socket. No file has inode 0.
pub const ANY_SOCKET: u64 = 0;

/// The task that was refused, read in the kernel because it is often gone a
/// millisecond later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Task {
    /// Start of the process (its group leader), nanoseconds of `CLOCK_BOOTTIME`;
    /// 0 where unknown.
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
    /// Zero.
    pub reserved: u32,
    /// The thread's name, NUL padded.
    pub comm: [u8; COMM_LEN],
    /// The arguments, each ended by a NUL. Bytes behind `cmdline_len` are
    /// meaningless.
    pub cmdline: [u8; CMDLINE_LEN],
}

/// One refused bind or listen: the only record in the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BindFailure {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The socket side.
    pub attempt: Attempt,
    /// The socket that refused.
    pub culprit: Culprit,
    /// The task side.
    pub task: Task,
}

/// Where this kernel keeps the fields that are read, resolved from its BTF at
/// load and handed over as a read-only global, so that one object file serves
/// every kernel. Byte offsets, unless a field says otherwise; [`ABSENT`] where
/// the kernel lacks the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// `sock_common.skc_family`, u16.
    pub sk_family: u32,
    /// `sock_common.skc_state`, u8.
    pub sk_state: u32,
    /// The byte that holds the next three.
    pub sk_options: u32,
    /// Bit of `skc_reuse` (4 bits wide) in that byte.
    pub sk_reuse_bit: u32,
    /// Bit of `skc_reuseport`.
    pub sk_reuseport_bit: u32,
    /// Bit of `skc_ipv6only`.
    pub sk_ipv6only_bit: u32,
    /// `sock_common.skc_bound_dev_if`, i32.
    pub sk_bound_dev_if: u32,
    /// `sock_common.skc_net`, a pointer to `net`.
    pub sk_net: u32,
    /// `sock_common.skc_rcv_saddr`, big-endian u32.
    pub sk_rcv_saddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`, 16 bytes.
    pub sk_v6_rcv_saddr: u32,
    /// `sock_common.skc_num`, u16 in host order.
    pub sk_num: u32,
    /// `sock.sk_protocol`, u16.
    pub sk_protocol: u32,
    /// `sock.sk_uid`, u32.
    pub sk_uid: u32,
    /// `sock.sk_socket`, a pointer to `socket`.
    pub sk_socket: u32,
    /// `socket.file`, a pointer.
    pub socket_file: u32,
    /// `unix_sock.scm_stat.nr_fds`, i32: descriptors on their way to it.
    pub unix_descriptors: u32,
    /// `socket.sk`, a pointer to `sock`.
    pub socket_sk: u32,
    /// `net.ns.inum`, u32.
    pub net_inum: u32,
    /// `net.net_cookie`, u64.
    pub net_cookie: u32,
    /// `task_struct.group_leader`, a pointer.
    pub task_group_leader: u32,
    /// `task_struct.real_parent`, a pointer.
    pub task_real_parent: u32,
    /// `task_struct.tgid`, i32.
    pub task_tgid: u32,
    /// `task_struct.flags`, u32.
    pub task_flags: u32,
    /// `task_struct.start_boottime`, u64.
    pub task_start_boottime: u32,
    /// `task_struct.nsproxy`, a pointer.
    pub task_nsproxy: u32,
    /// `task_struct.mm`, a pointer.
    pub task_mm: u32,
    /// `nsproxy.net_ns`, a pointer.
    pub nsproxy_net: u32,
    /// `mm_struct.arg_start`, an address in user space.
    pub mm_arg_start: u32,
    /// `mm_struct.arg_end`.
    pub mm_arg_end: u32,
    /// `file.f_inode`, a pointer.
    pub file_inode: u32,
    /// `inode.i_ino`, unsigned long.
    pub inode_number: u32,
    /// `inode.i_sb`, a pointer.
    pub inode_sb: u32,
    /// `super_block.s_magic`, unsigned long.
    pub sb_magic: u32,
    /// `task_struct.pid`, i32.
    pub task_pid: u32,
    /// `pt_regs`: the system call's number, u64 (x86-64) or i32 (arm64).
    pub regs_syscall: u32,
    /// `pt_regs`: the system call's second argument, u64.
    pub regs_second: u32,
    /// Helpers that this kernel has, see [`helper`].
    pub helpers: u32,
    /// The architecture's number of `bind(2)`.
    pub syscall_bind: u32,
    /// The architecture's number of `listen(2)`.
    pub syscall_listen: u32,
}

/// The value of a [`Layout`] field that this kernel lacks.
pub const ABSENT: u32 = u32::MAX;

/// Bits of [`Layout::helpers`].
pub mod helper {
    /// `bpf_get_current_task_btf` (5.11).
    pub const CURRENT_TASK_BTF: u32 = 1 << 0;
    /// `bpf_get_socket_cookie` in tracing programs (5.12).
    pub const TRACING_SOCKET_COOKIE: u32 = 1 << 1;
}

const _: () = assert!(size_of::<Attempt>() == 56);
const _: () = assert!(size_of::<Task>() == 56 + CMDLINE_LEN);
const _: () = assert!(size_of::<Culprit>() == 48);
const _: () = assert!(size_of::<BindFailure>() == 8 + 56 + 48 + 56 + CMDLINE_LEN);
const _: () = assert!(align_of::<BindFailure>() == 8);
const _: () = assert!(size_of::<Owner>() == 104 + RECORD_CMDLINE_LEN);
const _: () = assert!(size_of::<Port>() == 16);
const _: () = assert!(size_of::<PortUse>() == 24);
const _: () = assert!(size_of::<OpenFile>() == 24);
