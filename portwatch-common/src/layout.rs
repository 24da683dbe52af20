//! Offsets of the kernel fields that the programs read.

use bytemuck::{Pod, Zeroable};

/// Offsets of the fields that the programs read. The agent resolves them from the kernel's BTF
/// at load and passes them as a read-only global, so one object file serves every kernel. Byte
/// offsets, unless a field says otherwise; [`ABSENT`] if the kernel lacks the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// `sock_common.skc_family`, u16.
    pub sk_family: u32,
    /// `sock_common.skc_state`, u8.
    pub sk_state: u32,
    /// The byte that contains the next three.
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
    /// `sock_common.skc_cookie`, u64; 0 until it is first requested.
    pub sk_cookie: u32,
    /// `sock.sk_protocol`, u16.
    pub sk_protocol: u32,
    /// `sock.sk_uid`, u32.
    pub sk_uid: u32,
    /// `sock.sk_socket`, a pointer to `socket`.
    pub sk_socket: u32,
    /// The byte that contains `sock.sk_userlocks`; [`ABSENT`] also if it spans two bytes.
    pub sk_userlocks: u32,
    /// Its bit in that byte.
    pub sk_userlocks_bit: u32,
    /// `inet_sock.inet_sport`, big-endian u16: the local port, which stays there after the port
    /// was released.
    pub inet_sport: u32,
    /// `socket.file`, a pointer.
    pub socket_file: u32,
    /// `unix_sock.scm_stat.nr_fds`, i32: descriptors in flight to it.
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
    /// `task_struct.self_exec_id`, u64: it increases with each `execve(2)`.
    pub task_exec_id: u32,
    /// `task_struct.comm`, 16 bytes.
    pub task_comm: u32,
    /// `task_struct.cred`, a pointer.
    pub task_cred: u32,
    /// `cred.uid`, u32: the real user id.
    pub cred_uid: u32,
    /// `cred.user_ns`, a pointer to `user_namespace`.
    pub cred_user_ns: u32,
    /// `user_namespace.parent`, a pointer; null in the initial namespace.
    pub user_ns_parent: u32,
    /// `user_namespace.owner`, u32: the user who created it.
    pub user_ns_owner: u32,
    /// `user_namespace.ns.inum`, u32.
    pub user_ns_inum: u32,
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
    /// `file.f_op`, a pointer.
    pub file_operations: u32,
    /// `file.f_inode`, a pointer.
    pub file_inode: u32,
    /// `inode.i_ino`, unsigned long.
    pub inode_number: u32,
    /// `inode.i_sb`, a pointer.
    pub inode_sb: u32,
    /// `super_block.s_magic`, unsigned long.
    pub sb_magic: u32,
    /// `cgroup.root`, a pointer to `cgroup_root`.
    pub cgroup_root: u32,
    /// `cgroup.kn`, a pointer to `kernfs_node`.
    pub cgroup_kn: u32,
    /// `cgroup_root.hierarchy_id`, i32.
    pub root_hierarchy: u32,
    /// `kernfs_node.id`, u64.
    pub kernfs_id: u32,
    /// `task_struct.pid`, i32.
    pub task_pid: u32,
    /// `task_struct.exit_code`, i32.
    pub task_exit_code: u32,
    /// `task_struct.signal`, a pointer to `signal_struct`.
    pub task_signal: u32,
    /// `signal_struct.live`, i32: threads that have not ended.
    pub signal_live: u32,
    /// `signal_struct.flags`, u32.
    pub signal_flags: u32,
    /// `signal_struct.group_exit_code`, i32.
    pub signal_exit_code: u32,
    /// `pt_regs`: the system call's number, u64 (x86-64) or i32 (arm64).
    pub regs_syscall: u32,
    /// `pt_regs`: a function's first argument, u64.
    pub regs_first: u32,
    /// `pt_regs`: the second argument of a function or a system call, u64.
    pub regs_second: u32,
    /// `pt_regs`: a function's third argument, u64.
    pub regs_third: u32,
    /// `pt_regs`: the result of a function or a system call after it has run, u64.
    pub regs_result: u32,
    /// `pt_regs`: the value in that field before the call (arm64: the first argument), u64;
    /// [`ABSENT`] if that is `-ENOSYS`.
    pub regs_before: u32,
    /// `pt_regs`: the first argument of a 32-bit program's system call, u64.
    pub regs_compat_first: u32,
    /// `pt_regs`: its second argument, u64.
    pub regs_compat_second: u32,
    /// `pt_regs.pstate`, u64 (arm64): whether the program is a 32-bit one.
    pub regs_pstate: u32,
    /// `task_struct.thread_info.status`, u32 (x86-64): whether the system call was made by a
    /// 32-bit program.
    pub task_status: u32,
    /// `task_struct.seccomp.mode`, i32: not 0 if system calls are filtered.
    pub task_seccomp: u32,
    /// `task_struct.ptrace`, u32: not 0 if a tracer may answer system calls.
    pub task_ptrace: u32,
    /// Helpers that this kernel has, see [`helper`].
    pub helpers: u32,
    /// The architecture's number of `bind(2)`.
    pub syscall_bind: u32,
    /// The architecture's number of `listen(2)`.
    pub syscall_listen: u32,
    /// The bits of a number that identify the call. x32 programs set another bit.
    pub syscall_mask: u32,
    /// A 32-bit program's number of `bind`.
    pub compat_bind: u32,
    /// A 32-bit program's number of `listen`.
    pub compat_listen: u32,
    /// A 32-bit program's number of `socketcall`; no valid number if the architecture lacks
    /// it.
    pub compat_socketcall: u32,
}

/// The value of a [`Layout`] field that this kernel lacks.
pub const ABSENT: u32 = u32::MAX;

/// Bits of [`Layout::helpers`].
pub mod helper {
    /// `bpf_get_current_task_btf` (5.11).
    pub const CURRENT_TASK_BTF: u32 = 1 << 0;
    /// `bpf_get_socket_cookie` in tracing programs (5.12).
    pub const TRACING_SOCKET_COOKIE: u32 = 1 << 1;
    /// `bpf_probe_read_user`. Every kernel has it, but under lockdown=confidentiality the
    /// loader substitutes a helper that the verifier rejects.
    pub const READ_USER: u32 = 1 << 2;
    /// `bpf_getsockopt` in `cgroup/bind4|6` (5.11).
    pub const BIND_OPTIONS: u32 = 1 << 3;
    /// `bpf_task_pt_regs`, also in `cgroup/bind4|6`, and [`CURRENT_TASK_BTF`] there (5.15).
    pub const TASK_REGS: u32 = 1 << 4;
}
