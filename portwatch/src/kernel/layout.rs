//! The [`Layout`] of this kernel: the offsets of the fields that the programs read.

use portwatch_common::{ABSENT, Layout, helper};

use super::btf::{BtfError, Types};

/// Resolves every offset.
///
/// # Errors
/// A member that every event needs is missing. Others become [`ABSENT`].
pub fn resolve(types: &Types) -> Result<Layout, BtfError> {
    let need = |of: &str, path: &str| types.offset(of, path).map(|offset| offset.byte());
    let want = |of: &str, path: &str| need(of, path).unwrap_or(ABSENT);
    let reuse = types.offset("sock_common", "skc_reuse")?;
    let reuseport = types.offset("sock_common", "skc_reuseport")?;
    let ipv6only = types.offset("sock_common", "skc_ipv6only")?;
    // The field is four bits wide.
    let userlocks = types.offset("sock", "sk_userlocks").ok().filter(|offset| offset.bit() <= 4);
    let mut helpers = 0;
    // The kernel has a helper if it has the function that implements it.
    if types.has_function("bpf_get_current_task_btf") {
        helpers |= helper::CURRENT_TASK_BTF;
    }
    if types.has_function("bpf_get_socket_ptr_cookie") {
        helpers |= helper::TRACING_SOCKET_COOKIE;
    }
    if types.has_function("bpf_task_pt_regs") {
        helpers |= helper::TASK_REGS;
    }
    let calls = Calls::of_this_architecture();
    let register =
        |name: &str, number: u32| want("pt_regs", name).checked_add(8 * number).unwrap_or(ABSENT);
    Ok(Layout {
        sk_family: need("sock_common", "skc_family")?,
        sk_state: need("sock_common", "skc_state")?,
        sk_options: reuse.byte(),
        sk_reuse_bit: reuse.bit(),
        sk_reuseport_bit: reuseport.bit(),
        sk_ipv6only_bit: ipv6only.bit(),
        sk_bound_dev_if: need("sock_common", "skc_bound_dev_if")?,
        sk_net: need("sock_common", "skc_net")?,
        sk_rcv_saddr: need("sock_common", "skc_rcv_saddr")?,
        // A kernel without IPv6 has no such sockets. The load must only stay within the struct.
        sk_v6_rcv_saddr: need("sock_common", "skc_v6_rcv_saddr").unwrap_or(0),
        sk_num: need("sock_common", "skc_num")?,
        sk_cookie: want("sock_common", "skc_cookie"),
        sk_protocol: need("sock", "sk_protocol")?,
        sk_uid: need("sock", "sk_uid")?,
        sk_socket: need("sock", "sk_socket")?,
        sk_userlocks: userlocks.as_ref().map_or(ABSENT, |offset| offset.byte()),
        sk_userlocks_bit: userlocks.as_ref().map_or(0, |offset| offset.bit()),
        inet_sport: want("inet_sock", "inet_sport"),
        socket_file: need("socket", "file")?,
        unix_descriptors: want("unix_sock", "scm_stat.nr_fds"),
        socket_sk: need("socket", "sk")?,
        net_inum: need("net", "ns.inum")?,
        net_cookie: want("net", "net_cookie"),
        task_group_leader: need("task_struct", "group_leader")?,
        task_real_parent: need("task_struct", "real_parent")?,
        task_tgid: need("task_struct", "tgid")?,
        task_flags: need("task_struct", "flags")?,
        task_start_boottime: need("task_struct", "start_boottime")?,
        task_exec_id: need("task_struct", "self_exec_id")?,
        task_comm: need("task_struct", "comm")?,
        task_cred: need("task_struct", "cred")?,
        cred_uid: need("cred", "uid")?,
        cred_user_ns: want("cred", "user_ns"),
        user_ns_parent: want("user_namespace", "parent"),
        user_ns_owner: want("user_namespace", "owner"),
        user_ns_inum: want("user_namespace", "ns.inum"),
        task_nsproxy: need("task_struct", "nsproxy")?,
        task_mm: need("task_struct", "mm")?,
        nsproxy_net: need("nsproxy", "net_ns")?,
        mm_arg_start: need("mm_struct", "arg_start")?,
        mm_arg_end: need("mm_struct", "arg_end")?,
        file_operations: need("file", "f_op")?,
        file_inode: need("file", "f_inode")?,
        inode_number: need("inode", "i_ino")?,
        inode_sb: need("inode", "i_sb")?,
        sb_magic: need("super_block", "s_magic")?,
        cgroup_root: want("cgroup", "root"),
        cgroup_kn: want("cgroup", "kn"),
        root_hierarchy: want("cgroup_root", "hierarchy_id"),
        kernfs_id: want("kernfs_node", "id"),
        task_pid: need("task_struct", "pid")?,
        task_exit_code: want("task_struct", "exit_code"),
        task_signal: want("task_struct", "signal"),
        signal_live: want("signal_struct", "live"),
        signal_flags: want("signal_struct", "flags"),
        signal_exit_code: want("signal_struct", "group_exit_code"),
        regs_syscall: register(calls.number.0, calls.number.1),
        regs_first: register(calls.first.0, calls.first.1),
        regs_second: register(calls.second.0, calls.second.1),
        regs_third: register(calls.third.0, calls.third.1),
        regs_result: register(calls.result.0, calls.result.1),
        regs_before: calls.before.map_or(ABSENT, |name| register(name, 0)),
        regs_compat_first: register(calls.compat_first.0, calls.compat_first.1),
        regs_compat_second: register(calls.compat_second.0, calls.compat_second.1),
        regs_pstate: want("pt_regs", "pstate"),
        task_status: want("task_struct", "thread_info.status"),
        task_seccomp: want("task_struct", "seccomp.mode"),
        task_ptrace: want("task_struct", "ptrace"),
        helpers,
        syscall_bind: calls.bind,
        syscall_listen: calls.listen,
        syscall_mask: calls.mask,
        compat_bind: calls.compat_bind,
        compat_listen: calls.compat_listen,
        compat_socketcall: calls.compat_socketcall,
    })
}

/// A member of `pt_regs`, and the index of the element if it is an array.
type Register = (&'static str, u32);

/// How an architecture calls functions and makes system calls.
struct Calls {
    number: Register,
    /// The first argument of a function; a system call's may be elsewhere.
    first: Register,
    second: Register,
    third: Register,
    result: Register,
    /// The value of [`result`](Self::result) before the call returns; `-ENOSYS` for `None`.
    before: Option<&'static str>,
    compat_first: Register,
    compat_second: Register,
    bind: u32,
    listen: u32,
    mask: u32,
    compat_bind: u32,
    compat_listen: u32,
    compat_socketcall: u32,
}

impl Calls {
    const fn of_this_architecture() -> Self {
        if cfg!(target_arch = "aarch64") { Self::ARM64 } else { Self::X86_64 }
    }

    /// arch/x86/entry/syscalls; for the registers arch/x86/entry/calling.h.
    const X86_64: Self = Self {
        number: ("orig_ax", 0),
        first: ("di", 0),
        second: ("si", 0),
        third: ("dx", 0),
        result: ("ax", 0),
        before: None,
        compat_first: ("bx", 0),
        compat_second: ("cx", 0),
        bind: 49,
        listen: 50,
        // All bits except `__X32_SYSCALL_BIT`.
        mask: !0x4000_0000,
        compat_bind: 361,
        compat_listen: 363,
        compat_socketcall: 102,
    };

    /// arch/arm64/tools/syscall_64.tbl and syscall_32.tbl; for the registers
    /// arch/arm64/kernel/syscall.c. 32-bit programs (EABI) have no `socketcall`, and their
    /// registers are the lower halves of the same registers.
    const ARM64: Self = Self {
        number: ("syscallno", 0),
        first: ("regs", 0),
        second: ("regs", 1),
        third: ("regs", 2),
        result: ("regs", 0),
        before: Some("orig_x0"),
        compat_first: ("orig_x0", 0),
        compat_second: ("regs", 1),
        bind: 200,
        listen: 201,
        mask: !0,
        compat_bind: 282,
        compat_listen: 284,
        compat_socketcall: 0x7fff_ffff,
    };
}
