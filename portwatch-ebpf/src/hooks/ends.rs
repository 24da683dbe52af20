//! Reports processes that exit or start others, for the outcomes of failed binds. All hook
//! sets contain these programs.

use aya_ebpf::{bindings::task_struct, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::follow;

/// Runs for each exiting thread, after the kernel has subtracted it from the process's threads.
///
/// match-proto: `void (struct task_struct *p)`
#[btf_tracepoint(function = "sched_process_exit")]
pub fn pw_exited(ctx: BtfTracePointContext) -> i32 {
    if follow::is_active() {
        let task: *const task_struct = ctx.arg(0);
        follow::exited(task);
    }
    0
}

/// match-proto: `void (struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn pw_forked(ctx: BtfTracePointContext) -> i32 {
    if follow::is_active() {
        let (parent, child): (*const task_struct, *const task_struct) = (ctx.arg(0), ctx.arg(1));
        follow::forked(parent, child);
    }
    0
}
