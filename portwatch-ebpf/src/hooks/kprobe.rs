//! The kprobe set, for kernels that have no function exits: entries and returns of the functions
//! of [`super::fexit`] and [`super::culprit`]. A return has no arguments, so the entry keeps them.
//!
//! The kernel skips a return if too many threads are in the function at once (`nmissed`,
//! kernel/kprobes.c). If only the return of `get_port` is skipped, that of `inet_bind` still shows
//! the result. What neither has shown, the thread's next entry finds.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use portwatch_common::loss;

use crate::{
    binds, conflict, exits,
    layout::{Untyped, copy, offset},
    maps::{CALLS, Call, CallOf, count_loss},
    sock::Sock,
    tree,
};

/// A function that calls another one of these has its own calls.
const GET_PORT: u32 = 0;
const BIND: u32 = 1;
const CONFLICT: u32 = 2;
const SAME_ADDR: u32 = 3;

/// match-proto: `int inet_csk_get_port(struct sock *sk, unsigned short snum)`
#[kprobe]
pub fn pw_tcp_port_enter(ctx: ProbeContext) -> u32 {
    get_port(&ctx)
}

/// Its return.
#[kretprobe]
pub fn pw_tcp_port_return(ctx: RetProbeContext) -> u32 {
    got_port(&ctx)
}

/// match-proto: `int udp_v4_get_port(struct sock *sk, unsigned short snum)`
#[kprobe]
pub fn pw_udp4_port_enter(ctx: ProbeContext) -> u32 {
    get_port(&ctx)
}

/// Its return.
#[kretprobe]
pub fn pw_udp4_port_return(ctx: RetProbeContext) -> u32 {
    got_port(&ctx)
}

/// match-proto: `int udp_v6_get_port(struct sock *sk, unsigned short snum)`
#[kprobe]
pub fn pw_udp6_port_enter(ctx: ProbeContext) -> u32 {
    get_port(&ctx)
}

/// Its return.
#[kretprobe]
pub fn pw_udp6_port_return(ctx: RetProbeContext) -> u32 {
    got_port(&ctx)
}

#[inline(always)]
fn get_port(ctx: &ProbeContext) -> u32 {
    // A call whose return was skipped may have failed.
    if keep(ctx, GET_PORT) && tree::has_current() {
        count_loss(loss::RETURN_SKIPPED);
    }
    0
}

#[inline(always)]
fn got_port(ctx: &RetProbeContext) -> u32 {
    if let Some(call) = take(GET_PORT) {
        exits::got_port::<Untyped<Sock>>(
            Untyped::at(call.first),
            call.second as u16,
            result(ctx) as i32,
        );
    }
    0
}

/// match-proto: `int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[kprobe]
pub fn pw_inet_bind_enter(ctx: ProbeContext) -> u32 {
    keep(&ctx, BIND);
    0
}

/// Its return.
#[kretprobe]
pub fn pw_inet_bind_return(ctx: RetProbeContext) -> u32 {
    bound(&ctx)
}

/// match-proto: `int inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[kprobe]
pub fn pw_inet6_bind_enter(ctx: ProbeContext) -> u32 {
    keep(&ctx, BIND);
    0
}

/// Its return.
#[kretprobe]
pub fn pw_inet6_bind_return(ctx: RetProbeContext) -> u32 {
    bound(&ctx)
}

#[inline(always)]
fn bound(ctx: &RetProbeContext) -> u32 {
    // This result is also that of an inner call whose return was skipped.
    let _ = take(GET_PORT);
    let result = result(ctx) as i32;
    match take(BIND) {
        Some(call) => {
            exits::bound::<Untyped<u8>>(Untyped::at(call.first), Untyped::at(call.second), result)
        }
        // The kernel skipped the entry, or the table had no space.
        None => {
            if exits::is_unreported(result) {
                count_loss(loss::ATTEMPT_UNRECORDED);
            }
            binds::end();
        }
    }
    0
}

/// match-proto: `bool inet_bind_conflict(const struct sock *sk, struct sock *sk2,
/// kuid_t sk_uid, bool relax, bool reuseport_cb_ok, bool reuseport_ok)`
#[kprobe]
pub fn pw_conflict_enter(ctx: ProbeContext) -> u32 {
    keep(&ctx, CONFLICT);
    0
}

/// Its return.
#[kretprobe]
pub fn pw_conflict_return(ctx: RetProbeContext) -> u32 {
    compared(&ctx, CONFLICT)
}

/// match-proto: `bool inet_rcv_saddr_equal(const struct sock *sk,
/// const struct sock *sk2, bool match_wildcard)`
#[kprobe]
pub fn pw_same_addr_enter(ctx: ProbeContext) -> u32 {
    // Without `match_wildcard` the caller is not a conflict check.
    if conflict::is_true(register(&ctx, offset!(regs_third))) {
        keep(&ctx, SAME_ADDR);
    }
    0
}

/// Its return.
#[kretprobe]
pub fn pw_same_addr_return(ctx: RetProbeContext) -> u32 {
    compared(&ctx, SAME_ADDR)
}

#[inline(always)]
fn compared(ctx: &RetProbeContext, function: u32) -> u32 {
    if let Some(call) = take(function)
        && conflict::is_true(result(ctx))
    {
        conflict::met::<Untyped<Sock>>(Untyped::at(call.first), Untyped::at(call.second));
    }
    0
}

/// Keeps the first two arguments until the function returns. Returns whether an earlier call of
/// this thread has not returned.
#[inline(always)]
fn keep(ctx: &ProbeContext, function: u32) -> bool {
    let call = Call {
        first: register(ctx, offset!(regs_first)),
        second: register(ctx, offset!(regs_second)),
    };
    let key = key(function);
    // The entry of a thread stays for its next call, as in `ATTEMPTS`.
    if let Some(place) = CALLS.get_ptr_mut(key) {
        // SAFETY: only this thread writes its own entry, and it is running this program.
        unsafe {
            let is_left = (*place).first != 0;
            *place = call;
            return is_left;
        }
    }
    // Without an entry, the return of `inet_bind` counts a failed bind as lost.
    let _ = CALLS.insert(key, call, 0);
    false
}

/// Returns the arguments of the call that returns now; `None` if its entry was not seen.
#[inline(always)]
fn take(function: u32) -> Option<Call> {
    let place = CALLS.get_ptr_mut(key(function))?;
    // SAFETY: as in `keep`.
    let call = unsafe {
        let call = *place;
        (*place).first = 0;
        call
    };
    (call.first != 0).then_some(call)
}

#[inline(always)]
fn key(function: u32) -> CallOf {
    CallOf { thread: bpf_get_current_pid_tgid(), function, reserved: 0 }
}

/// A load from the context must have a constant offset, which depends on the architecture. So the
/// register is copied.
#[inline(always)]
fn register(ctx: &impl EbpfContext, offset: u32) -> u64 {
    copy(ctx.as_ptr(), offset)
}

#[inline(always)]
fn result(ctx: &RetProbeContext) -> u64 {
    register(ctx, offset!(regs_result))
}
