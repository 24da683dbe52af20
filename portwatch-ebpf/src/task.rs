//! Writes the current task directly into a ring buffer record.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_task_btf, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns,
        generated::bpf_probe_read_user,
    },
};
use portwatch_common::{
    Arguments, CMDLINE_LEN, COMM_LEN, Owner, RECORD_CMDLINE_LEN, Task, Tenant, helper, task_flag,
};

use crate::{
    layout::{has, load, load_at, offset},
    maps::ARGUMENTS,
};

/// `PF_KTHREAD` (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

/// Fills `task` with the current task. Every field is written, except the bytes of `cmdline`
/// after `cmdline_len`.
///
/// # Safety
/// `task` points to writable memory of that size, as a ring reservation does.
#[inline(always)]
pub unsafe fn describe_current(task: *mut Task) {
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: plain stores into the reservation of the caller; the helpers have no
    // preconditions.
    unsafe {
        (*task).pid = (pid_tgid >> 32) as u32;
        (*task).tid = pid_tgid as u32;
        (*task).uid = bpf_get_current_uid_gid() as u32;
        (*task).cgroup_id = bpf_get_current_cgroup_id();
        (*task).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        (*task).user = (*task).uid;
        (*task).started_ns = 0;
        (*task).ppid = 0;
        (*task).flags = 0;
        (*task).cmdline_len = 0;
    }
    if offset!(helpers) & helper::CURRENT_TASK_BTF != 0 {
        // SAFETY: the kernel has the helper; `task` is the caller's.
        unsafe { describe_struct(bpf_get_current_task_btf(), task) };
    }
}

/// Fills in the facts that only `task_struct` contains.
///
/// # Safety
/// As [`describe_current`]; `current` is the BTF pointer to the current task.
#[inline(always)]
unsafe fn describe_struct(current: *const task_struct, task: *mut Task) {
    let leader = load!(current, task_group_leader, *const task_struct);
    let parent = load!(leader, task_real_parent, *const task_struct);
    let mut flags = 0;
    if load!(current, task_flags, u32) & PF_KTHREAD != 0 {
        flags |= task_flag::KERNEL_THREAD;
    }
    let started_ns = load!(leader, task_start_boottime, u64);
    let ppid = load!(parent, task_tgid, u32);
    // SAFETY: stores into the caller's reservation.
    unsafe {
        (*task).started_ns = started_ns;
        (*task).ppid = ppid;
        (*task).user = user_of(current, (*task).uid);
    }
    // SAFETY: the destination is the caller's reservation.
    let (len, cut) = unsafe { read_arguments::<CMDLINE_LEN>(current, &raw mut (*task).cmdline) };
    if cut {
        flags |= task_flag::CMDLINE_CUT;
    }
    // SAFETY: as above.
    unsafe {
        (*task).cmdline_len = len;
        (*task).flags = flags;
    }
}

/// Returns the current time in nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Returns the start of the current process, or 0 where unknown.
#[inline(always)]
pub fn started_ns() -> u64 {
    if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        return 0;
    }
    // SAFETY: the kernel has the helper.
    let current: *const task_struct = unsafe { bpf_get_current_task_btf() };
    let leader = load!(current, task_group_leader, *const task_struct);
    load!(leader, task_start_boottime, u64)
}

/// Returns the parent of the current process, or 0 where unknown.
#[inline(always)]
pub fn parent() -> u32 {
    if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        return 0;
    }
    // SAFETY: the kernel has the helper.
    let current: *const task_struct = unsafe { bpf_get_current_task_btf() };
    let leader = load!(current, task_group_leader, *const task_struct);
    let parent = load!(leader, task_real_parent, *const task_struct);
    load!(parent, task_tgid, u32)
}

/// Returns the tenant of the current task.
#[inline(always)]
pub fn tenant() -> Tenant {
    let uid = bpf_get_current_uid_gid() as u32;
    let user = if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        uid
    } else {
        // SAFETY: the kernel has the helper.
        user_of(unsafe { bpf_get_current_task_btf() }, uid)
    };
    // SAFETY: the helper has no preconditions.
    Tenant { cgroup_id: unsafe { bpf_get_current_cgroup_id() }, user, reserved: 0 }
}

/// Returns the user who created the outermost user namespace of the task, because that user has
/// many ids in there. A namespace that root created, for a container, counts as a separate
/// user, identified by its inode. Without a namespace it is the task's own user id.
#[inline(always)]
fn user_of(task: *const task_struct, uid: u32) -> u32 {
    /// Levels of nested namespaces that are checked. Deeper namespaces share one user.
    const MOST: u32 = 4;
    const DEEPER: u32 = u32::MAX - 1;
    let known =
        has!(cred_user_ns) && has!(user_ns_parent) && has!(user_ns_owner) && has!(user_ns_inum);
    if uid == 0 || !known {
        return uid;
    }
    let cred = load!(task, task_cred, *const u8);
    let mut namespace = load!(cred, cred_user_ns, *const u8);
    let mut user = uid;
    for _ in 0..=MOST {
        let parent = load!(namespace, user_ns_parent, *const u8);
        if parent.is_null() {
            return user;
        }
        user = match load!(namespace, user_ns_owner, u32) {
            0 => load!(namespace, user_ns_inum, u32),
            owner => owner,
        };
        namespace = parent;
    }
    DEEPER
}

/// Fills in the task's side of an owner record, and records its arguments.
///
/// # Safety
/// `owner` points to writable memory of that size.
#[inline(always)]
pub unsafe fn describe_owner(owner: *mut Owner) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let (mut started_ns, mut ppid, mut program) = (0, 0, 0);
    let (uid, comm);
    if offset!(helpers) & helper::CURRENT_TASK_BTF != 0 {
        // SAFETY: the kernel has the helper.
        let current: *const task_struct = unsafe { bpf_get_current_task_btf() };
        let leader = load!(current, task_group_leader, *const task_struct);
        let parent = load!(leader, task_real_parent, *const task_struct);
        started_ns = load!(leader, task_start_boottime, u64);
        ppid = load!(parent, task_tgid, u32);
        program = load!(current, task_exec_id, u64) as u32;
        keep_arguments(current, pid, started_ns, program);
        // A helper would copy and translate the ids, which would cost as much as everything
        // else here.
        let cred = load!(current, task_cred, *const u8);
        uid = load!(cred, cred_uid, u32);
        comm = name_of(current);
    } else {
        uid = bpf_get_current_uid_gid() as u32;
        comm = bpf_get_current_comm().unwrap_or([0; 16]);
    }
    // SAFETY: plain stores into the caller's memory; the helpers have no
    // preconditions.
    unsafe {
        (*owner).pid = pid;
        (*owner).uid = uid;
        (*owner).cgroup_id = bpf_get_current_cgroup_id();
        (*owner).comm = comm;
        (*owner).started_ns = started_ns;
        (*owner).ppid = ppid;
        (*owner).program = program;
        (*owner).reserved = 0;
    }
}

/// Returns the thread's name.
#[inline(always)]
fn name_of(task: *const task_struct) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    let (first, last) = comm.split_at_mut(8);
    first.copy_from_slice(&load!(task, task_comm, u64).to_ne_bytes());
    last.copy_from_slice(&load_at::<u64, _>(task, offset!(task_comm) + 8).to_ne_bytes());
    comm
}

/// Returns whether the entry is that of the current process and of the program that it runs
/// now.
///
/// # Safety
/// `owner` points to an [`Owner`].
#[inline(always)]
pub unsafe fn is_current(owner: *const Owner) -> bool {
    // SAFETY: the caller's pointer.
    let (pid, program, comm) = unsafe { ((*owner).pid, (*owner).program, (*owner).comm) };
    if pid != (bpf_get_current_pid_tgid() >> 32) as u32 {
        return false;
    }
    if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        return bpf_get_current_comm().is_ok_and(|own| own == comm);
    }
    // SAFETY: the kernel has the helper.
    let current: *const task_struct = unsafe { bpf_get_current_task_btf() };
    load!(current, task_exec_id, u64) as u32 == program
}

/// Copies the arguments, once for each program that a process runs.
#[inline(always)]
fn keep_arguments(current: *const task_struct, pid: u32, started_ns: u64, program: u32) {
    let Some(kept) = ARGUMENTS.get_ptr_mut(Arguments::slot(pid)) else {
        return;
    };
    // SAFETY: aligned accesses to the map's value, which stays valid while this program runs. A
    // process with the same slot may write to it at the same moment. Then a command line may be
    // that of the other process.
    unsafe {
        if (*kept).pid == pid && (*kept).started_ns == started_ns && (*kept).program == program {
            return;
        }
        (*kept).pid = 0;
        compiler_fence(Ordering::SeqCst);
        (*kept).started_ns = started_ns;
        (*kept).program = program;
        let (len, _) = read_arguments::<RECORD_CMDLINE_LEN>(current, &raw mut (*kept).cmdline);
        (*kept).len = len;
        compiler_fence(Ordering::SeqCst);
        // What could not be read now is read at the next bind.
        (*kept).pid = if len == 0 { 0 } else { pid };
    }
}

/// Copies the beginning of the arguments. Returns the number of bytes copied, which is 0 if
/// they cannot be read, and whether there are more.
///
/// # Safety
/// `to` is writable; `current` is the BTF pointer to the current task.
#[inline(always)]
unsafe fn read_arguments<const MOST: usize>(
    current: *const task_struct,
    to: *mut [u8; MOST],
) -> (u16, bool) {
    let mm = load!(current, task_mm, *const u8);
    if mm.is_null() || offset!(helpers) & helper::READ_USER == 0 {
        return (0, false);
    }
    let start = load!(mm, mm_arg_start, u64);
    let end = load!(mm, mm_arg_end, u64);
    let mut len = end.wrapping_sub(start);
    let cut = len > MOST as u64;
    if cut {
        len = MOST as u64;
    }
    // SAFETY: `len` fits `to`. The helper checks the user's address, and fails where the page
    // is not resident.
    let failed = unsafe { bpf_probe_read_user(to.cast(), len as u32, start as *const _) };
    if failed == 0 { (len as u16, cut) } else { (0, cut) }
}
