//! The current task, written straight into a ring buffer record.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_task_btf, bpf_get_current_uid_gid, generated::bpf_probe_read_user,
    },
};
use portwatch_common::{CMDLINE_LEN, Owner, RECORD_CMDLINE_LEN, Task, helper, task_flag};

use crate::layout::{load, offset};

/// `PF_KTHREAD` (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

/// Fills `task` with the current task. Every field is written, but for the
/// bytes of `cmdline` behind `cmdline_len`.
///
/// # Safety
/// `task` points to writable memory of that size, as a ring reservation does.
#[inline(always)]
pub unsafe fn describe_current(task: *mut Task) {
    let pid_tgid = bpf_get_current_pid_tgid();
    // SAFETY: plain stores into the reservation that the caller vouches for;
    // the helpers have no preconditions.
    unsafe {
        (*task).pid = (pid_tgid >> 32) as u32;
        (*task).tid = pid_tgid as u32;
        (*task).uid = bpf_get_current_uid_gid() as u32;
        (*task).cgroup_id = bpf_get_current_cgroup_id();
        (*task).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        (*task).reserved = 0;
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

/// What only `task_struct` tells.
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

/// Fills in the task's side of a record.
///
/// # Safety
/// `owner` points to writable memory of that size.
#[inline(always)]
pub unsafe fn describe_owner(owner: *mut Owner) {
    // SAFETY: plain stores into the caller's memory; the helpers have no
    // preconditions.
    unsafe {
        (*owner).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*owner).uid = bpf_get_current_uid_gid() as u32;
        (*owner).cgroup_id = bpf_get_current_cgroup_id();
        (*owner).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        (*owner).started_ns = 0;
        (*owner).ppid = 0;
        (*owner).cmdline_len = 0;
    }
    if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        return;
    }
    // SAFETY: the kernel has the helper.
    let current = unsafe { bpf_get_current_task_btf() };
    let leader = load!(current, task_group_leader, *const task_struct);
    let parent = load!(leader, task_real_parent, *const task_struct);
    let started_ns = load!(leader, task_start_boottime, u64);
    let ppid = load!(parent, task_tgid, u32);
    // SAFETY: as above; the destination is as long as the length's bound.
    unsafe {
        (*owner).started_ns = started_ns;
        (*owner).ppid = ppid;
        let (len, _) = read_arguments::<RECORD_CMDLINE_LEN>(current, &raw mut (*owner).cmdline);
        (*owner).cmdline_len = len;
    }
}

/// Copies the beginning of the arguments. Gives the bytes copied, none if they
/// cannot be read, and whether there are more.
///
/// # Safety
/// `to` is writable; `current` is the BTF pointer to the current task.
#[inline(always)]
unsafe fn read_arguments<const MOST: usize>(
    current: *const task_struct,
    to: *mut [u8; MOST],
) -> (u16, bool) {
    let mm = load!(current, task_mm, *const u8);
    if mm.is_null() {
        return (0, false);
    }
    let start = load!(mm, mm_arg_start, u64);
    let end = load!(mm, mm_arg_end, u64);
    let mut len = end.wrapping_sub(start);
    let cut = len > MOST as u64;
    if cut {
        len = MOST as u64;
    }
    // SAFETY: `len` fits `to`; the helper checks the user's address and fails
    // where the page is not resident.
    let failed = unsafe { bpf_probe_read_user(to.cast(), len as u32, start as *const _) };
    if failed == 0 { (len as u16, cut) } else { (0, cut) }
}
