//! The [`Layout`] of this kernel: where it keeps what the programs read.

use portwatch_common::{ABSENT, Layout, helper};

use super::btf::{BtfError, Types};

/// Resolves every offset.
///
/// # Errors
/// A member that no event can do without is missing. Others become [`ABSENT`].
pub fn resolve(types: &Types) -> Result<Layout, BtfError> {
    let need = |of: &str, path: &str| types.offset(of, path).map(|offset| offset.byte());
    let want = |of: &str, path: &str| need(of, path).unwrap_or(ABSENT);
    let reuse = types.offset("sock_common", "skc_reuse")?;
    let reuseport = types.offset("sock_common", "skc_reuseport")?;
    let ipv6only = types.offset("sock_common", "skc_ipv6only")?;
    let mut helpers = 0;
    // A helper is there where the kernel has the function behind it.
    if types.has_function("bpf_get_current_task_btf") {
        helpers |= helper::CURRENT_TASK_BTF;
    }
    if types.has_function("bpf_get_socket_ptr_cookie") {
        helpers |= helper::TRACING_SOCKET_COOKIE;
    }
    let (regs_syscall, regs_second) = if cfg!(target_arch = "aarch64") {
        // The second argument is x1.
        (want("pt_regs", "syscallno"), want("pt_regs", "regs").saturating_add(8))
    } else {
        (want("pt_regs", "orig_ax"), want("pt_regs", "si"))
    };
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
        // A kernel without IPv6 has no such sockets either; the load must only
        // stay within the struct.
        sk_v6_rcv_saddr: need("sock_common", "skc_v6_rcv_saddr").unwrap_or(0),
        sk_num: need("sock_common", "skc_num")?,
        sk_cookie: want("sock_common", "skc_cookie"),
        sk_protocol: need("sock", "sk_protocol")?,
        sk_uid: need("sock", "sk_uid")?,
        sk_socket: need("sock", "sk_socket")?,
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
        regs_syscall,
        regs_second,
        helpers,
        syscall_bind: if cfg!(target_arch = "aarch64") { 200 } else { 49 },
        syscall_listen: if cfg!(target_arch = "aarch64") { 201 } else { 50 },
    })
}
