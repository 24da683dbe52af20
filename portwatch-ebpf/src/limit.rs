//! A process that is refused again and again sends some records a second; what is
//! more is counted here, exactly, and does not fill the ring.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns};
use portwatch_common::{Attempt, Source, SourceUse};

use crate::maps::SOURCES;

const SECOND: u64 = 1_000_000_000;
/// Do not overwrite (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;

/// Set by user space before load; never, if it is `u64::MAX`.
#[unsafe(no_mangle)]
static SENT_A_SECOND: u64 = portwatch_common::SENT_A_SECOND;

/// Whether the refusal has been counted and is not to be sent.
#[inline(always)]
pub fn only_counts(attempt: &Attempt) -> bool {
    // SAFETY: the static is a plain integer; volatile keeps the compiler from
    // folding in the value that it was built with.
    let most = unsafe { core::ptr::read_volatile(&raw const SENT_A_SECOND) };
    if most == u64::MAX {
        return false;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let source = Source::of(attempt, (bpf_get_current_pid_tgid() >> 32) as u32);
    let Some(known) = SOURCES.get_ptr_mut(source) else {
        let first = SourceUse { second_ns: now, sent: 1, counted: 0, last_ns: 0 };
        // Where there is no room, or another thread was first, it is sent.
        let _ = SOURCES.insert(source, first, BPF_NOEXIST);
        return false;
    };
    // SAFETY: this processor's own value, which user space removes only when it has
    // not been used for seconds; a program is not entered again on the same
    // processor before it has returned. (Another that counts may be, where a task is
    // preempted between load and store; Rust has no atomic addition for this target.)
    unsafe {
        if now.wrapping_sub((*known).second_ns) >= SECOND {
            (*known).second_ns = now;
            (*known).sent = 1;
            return false;
        }
        if (*known).sent < most {
            (*known).sent += 1;
            return false;
        }
        (*known).last_ns = now;
        (*known).counted += 1;
    }
    true
}
