//! Tells the binds of a thread apart, on kernels that preempt programs at the end of a bind (from
//! 7.2 on). While a task waits in the middle of such a program, the kernel skips it for every other
//! task on the processor. It never skips a cgroup program, so the beginning of each bind is seen: a
//! bind whose end no program has seen is counted as a loss at the thread's next one.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::maps::{BINDS, Bind};

/// Whether beginnings are seen. Set by user space before load.
#[unsafe(no_mangle)]
static BEGINNINGS: u32 = 0;

/// The current thread begins a bind. Returns whether the end of its last one was not seen.
#[inline(always)]
pub fn begin() -> bool {
    let thread = bpf_get_current_pid_tgid();
    if let Some(bind) = BINDS.get_ptr_mut(thread) {
        // SAFETY: only this thread writes its own entry, and it is running this program.
        unsafe {
            let is_open = (*bind).open != 0;
            (*bind).number += 1;
            (*bind).open = 1;
            return is_open;
        }
    }
    // Without an entry, the end of this bind is not missed.
    let _ = BINDS.insert(thread, Bind { number: 1, open: 1 }, 0);
    false
}

/// A program sees the end of the current thread's bind, whatever its result is.
#[inline(always)]
pub fn end() {
    if let Some(bind) = own() {
        // SAFETY: as in `begin`.
        unsafe { (*bind).open = 0 };
    }
}

/// Returns the number of the current thread's bind; 0 where beginnings are not seen.
#[inline(always)]
pub fn number() -> u64 {
    // SAFETY: as in `begin`.
    own().map_or(0, |bind| unsafe { (*bind).number })
}

#[inline(always)]
fn own() -> Option<*mut Bind> {
    // SAFETY: the static is a plain integer; volatile keeps the compiler from folding in the value
    // that it was built with.
    let are_seen = unsafe { core::ptr::read_volatile(&raw const BEGINNINGS) } != 0;
    if are_seen { BINDS.get_ptr_mut(bpf_get_current_pid_tgid()) } else { None }
}
