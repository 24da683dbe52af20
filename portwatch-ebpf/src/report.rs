//! Writes one failed bind into the ring buffer.

use portwatch_common::{Attempt, BindFailure, Culprit, loss};

use crate::{
    follow, limit,
    maps::{FAILURES, count_loss, ignores},
    task,
};

/// The value if no blocking socket was caught.
pub const UNKNOWN: Culprit = Culprit {
    socket_cookie: 0,
    inode: 0,
    address: [0; 16],
    uid: 0,
    device: 0,
    family: 0,
    flags: 0,
    state: 0,
    reserved: [0; 3],
};

/// Reports that `attempt` by the current task failed because of `culprit`.
#[inline(always)]
pub fn refused(attempt: &Attempt, culprit: &Culprit) {
    if ignores(attempt.port) {
        return;
    }
    let now = task::now();
    let Some(tenant) = limit::admit(attempt, now) else {
        return;
    };
    // This comes before the record is sent, so that no later action of the process is missed.
    let watch_ns = follow::begin(attempt, &tenant, now);
    let Some(mut entry) = FAILURES.reserve::<BindFailure>(0) else {
        count_loss(loss::RING_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record, and each field of it
    // is written here or by `describe_current`.
    unsafe {
        (*record).at_ns = now;
        (*record).watch_ns = watch_ns;
        (*record).attempt = *attempt;
        (*record).culprit = *culprit;
        task::describe_current(&raw mut (*record).task);
    }
    entry.submit(0);
}
