//! Determines which system call a thread is making, from its registers.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_get_current_task_btf, generated::bpf_task_pt_regs},
};
use portwatch_common::{helper, stage};

use crate::layout::{has, load, offset};

/// `TS_COMPAT` (arch/x86/include/asm/thread_info.h).
const TS_COMPAT: u32 = 0x0002;
/// `PSR_MODE32_BIT` (arch/arm64/include/uapi/asm/ptrace.h).
const PSR_MODE32_BIT: u64 = 0x10;
/// `SYS_BIND` and `SYS_LISTEN` (include/uapi/linux/net.h).
const SYS_BIND: u32 = 2;
const SYS_LISTEN: u32 = 4;
const ENOSYS: i64 = 38;

/// `struct pt_regs`, opaque.
pub enum Regs {}

/// Returns the number of the system call. It fits in 32 bits on every architecture, and both
/// widths that are read here are little-endian.
#[inline(always)]
pub fn number(regs: *const Regs) -> u32 {
    load!(regs, regs_syscall, u32)
}

/// Returns whether the number may be that of bind or listen. This is checked first, because it
/// runs for every system call. [`asks_for`] decides to which ABI the number belongs.
#[inline(always)]
pub fn may_be_one(number: u32) -> bool {
    let native = number & offset!(syscall_mask);
    native == offset!(syscall_bind)
        || native == offset!(syscall_listen)
        || number == offset!(compat_bind)
        || number == offset!(compat_listen)
        || number == offset!(compat_socketcall)
}

/// Returns the [`stage`] of the current thread's call: [`stage::NONE`] for any call except bind
/// and listen.
#[inline(always)]
pub fn asks_for(regs: *const Regs) -> u8 {
    let number = number(regs);
    let (bind, listen) = if !is_compat(regs, number) {
        let native = number & offset!(syscall_mask);
        (native == offset!(syscall_bind), native == offset!(syscall_listen))
    } else if number == offset!(compat_socketcall) {
        let which = load!(regs, regs_compat_first, u32);
        (which == SYS_BIND, which == SYS_LISTEN)
    } else {
        (number == offset!(compat_bind), number == offset!(compat_listen))
    };
    // It has no branches, because the verifier would follow every combination of them.
    bind as u8 * stage::BIND + listen as u8 * stage::LISTEN
}

/// Returns the second argument of bind: the address of the caller's `sockaddr`.
#[inline(always)]
pub fn address_of(regs: *const Regs) -> Address {
    let number = number(regs);
    if !is_compat(regs, number) {
        Address { at: load!(regs, regs_second, u64), is_second_of: false }
    } else {
        let at = u64::from(load!(regs, regs_compat_second, u32));
        Address { at, is_second_of: number == offset!(compat_socketcall) }
    }
}

/// The location of a `sockaddr` in user space.
#[derive(Clone, Copy)]
pub struct Address {
    /// Its address.
    pub at: u64,
    /// The address of three 32-bit arguments. The second of these is the address of the
    /// `sockaddr`.
    pub is_second_of: bool,
}

/// Returns whether the call was made by a 32-bit program, which has other call numbers.
#[inline(always)]
fn is_compat(regs: *const Regs, number: u32) -> bool {
    if has!(regs_pstate) {
        return load!(regs, regs_pstate, u64) & PSR_MODE32_BIT != 0;
    }
    if has!(task_status) && offset!(helpers) & helper::CURRENT_TASK_BTF != 0 {
        return load!(current(), task_status, u32) & TS_COMPAT != 0;
    }
    // No native call has the numbers that bind and listen have here.
    number == offset!(compat_bind)
        || number == offset!(compat_listen)
        || number == offset!(compat_socketcall)
}

/// Returns whether an attempt that the kernel makes now belongs to the current thread's bind or
/// listen. It does not if it comes from an io_uring, which the thread may also process between
/// two calls, or if the kernel binds during another call.
#[inline(always)]
pub fn is_for(stage: u8) -> bool {
    if offset!(helpers) & helper::TASK_REGS == 0 {
        // This applies up to 5.14, where no io_uring can bind.
        return true;
    }
    // SAFETY: the kernel has both helpers.
    let regs = unsafe { bpf_task_pt_regs(current().cast_mut()) } as *const Regs;
    has_no_result(regs) && asks_for(regs) == stage
}

/// Returns whether the field for the call's result still has the value that kernel entry
/// writes. It has this value until the call ends, and afterwards only if the result is the same
/// value.
#[inline(always)]
pub fn has_no_result(regs: *const Regs) -> bool {
    let result = load!(regs, regs_result, u64);
    if has!(regs_before) {
        result == load!(regs, regs_before, u64)
    } else {
        result as i64 == -ENOSYS
    }
}

/// Returns whether something other than the kernel may return the result of the current
/// thread's calls: a seccomp filter or a tracer. Returns `false` where that is unknown, up to
/// 5.10.
#[inline(always)]
pub fn may_be_answered_by_others() -> bool {
    if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        return false;
    }
    let task = current();
    let filtered = has!(task_seccomp) && load!(task, task_seccomp, u32) != 0;
    filtered || has!(task_ptrace) && load!(task, task_ptrace, u32) != 0
}

/// May be called only if the kernel has the helper.
#[inline(always)]
fn current() -> *const task_struct {
    // SAFETY: the callers have checked that the kernel has the helper.
    unsafe { bpf_get_current_task_btf() }
}
