//! The processes whose failed binds are reported: all, or only one process and its
//! descendants.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task_btf},
};
use portwatch_common::helper;

use crate::{
    layout::{load, offset},
    maps::FAMILY,
};

/// The most generations that are checked.
const MOST: u32 = 32;

/// The process whose descendants are watched, in the initial pid namespace; 0 for all
/// processes. Set by user space before load.
#[unsafe(no_mangle)]
static ROOT: u32 = 0;

/// Returns whether the current task's failed binds are reported. The parents are read while the
/// task is running, so it does not matter how soon it exits.
///
/// Call it before everything else: the verifier follows all generations on every path that
/// leads here, and searches all the kernel's types for the parent's type each time (1.5 ms).
#[inline(always)]
pub fn has_current() -> bool {
    let root = root();
    if root == 0 {
        return true;
    }
    if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        return has((bpf_get_current_pid_tgid() >> 32) as u32);
    }
    // SAFETY: the kernel has the helper.
    let mut task = unsafe { bpf_get_current_task_btf() } as *const task_struct;
    for _ in 0..MOST {
        if load!(task, task_tgid, u32) == root {
            return true;
        }
        task = load!(task, task_real_parent, *const task_struct);
    }
    false
}

/// Returns whether the process is the root, or recorded as one of its descendants.
#[inline(always)]
pub fn has(pid: u32) -> bool {
    // SAFETY: the reference is not kept.
    pid == root() || unsafe { FAMILY.get(pid) }.is_some()
}

#[inline(always)]
fn root() -> u32 {
    // SAFETY: the static is a plain integer; volatile keeps the compiler from
    // folding in the value that it was built with.
    unsafe { core::ptr::read_volatile(&raw const ROOT) }
}
