//! Records the descendants of the watched process, where programs cannot read a task's parents
//! (up to Linux 5.10).

use aya_ebpf::{bindings::task_struct, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{layout::load, maps::FAMILY, tree};

/// Adds the child of a recorded process. For the child of any other process, removes the entry
/// of an earlier process with the same pid.
///
/// match-proto: `void (struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn pw_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child): (*const task_struct, *const task_struct) = (ctx.arg(0), ctx.arg(1));
    let (parent, child) = (load!(parent, task_tgid, u32), load!(child, task_tgid, u32));
    if parent == child {
        // It is a thread.
        return 0;
    }
    // If the map is full, the least recently used entry is replaced.
    let _ = if tree::has(parent) { FAMILY.insert(child, 1, 0) } else { FAMILY.remove(child) };
    0
}
