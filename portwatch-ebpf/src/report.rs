//! One refusal into the ring buffer.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portwatch_common::{Attempt, BindFailure, loss};

use crate::{
    maps::{FAILURES, count_loss},
    task,
};

/// Reports that `attempt` by the current task was refused.
#[inline(always)]
pub fn refused(attempt: &Attempt) {
    let Some(mut entry) = FAILURES.reserve::<BindFailure>(0) else {
        count_loss(loss::RING_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record, and each field of it
    // is written here or by `describe_current`.
    unsafe {
        (*record).at_ns = bpf_ktime_get_boot_ns();
        (*record).attempt = *attempt;
        task::describe_current(&raw mut (*record).task);
    }
    entry.submit(0);
}
