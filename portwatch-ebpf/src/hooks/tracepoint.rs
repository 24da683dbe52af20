//! The tracepoint set, for kernels that reject function hooks.
//!
//! `cgroup/bind4|6` sees the attempt of a bind, and the state change CLOSE → LISTEN shows the
//! attempt of a listen. The result is known when the system call returns. The two are joined by
//! the thread. An attempt that does not belong to the thread's system call is not kept
//! ([`call::is_for`]). Binds without their own system call are missed: those of io_uring, and
//! the kernel's own.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_get_netns_cookie,
        bpf_get_socket_cookie, bpf_getsockopt, bpf_probe_read_user, bpf_skc_to_tcp_sock,
        bpf_skc_to_udp6_sock,
    },
    macros::{btf_tracepoint, cgroup_sock_addr},
    programs::{BtfTracePointContext, SockAddrContext},
};
use aya_log_ebpf::debug;
use portwatch_common::{Attempt, flag, helper, loss, stage};

use super::ALLOW;
use crate::{
    call::{self, Regs},
    follow,
    layout::{load, offset},
    maps::{ATTEMPTS, count_loss, count_not_attempted},
    record, report,
    sock::{self, AF_INET, AF_INET6, IPPROTO_TCP, Sock},
    tree,
};

const EADDRINUSE: i64 = 98;
const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_REUSEPORT: i32 = 15;

/// match-proto: BPF_CGROUP_RUN_PROG_INET4_BIND in `__inet_bind`.
#[cgroup_sock_addr(bind4)]
pub fn pw_bind4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the whole program.
    let user = unsafe { &*ctx.sock_addr };
    let mut attempt = asked(&ctx, user);
    attempt.family = AF_INET;
    attempt.address[..4].copy_from_slice(&user.user_ip4.to_ne_bytes());
    remember(&ctx, user, attempt);
    ALLOW
}

/// match-proto: BPF_CGROUP_RUN_PROG_INET6_BIND in `__inet6_bind`.
#[cgroup_sock_addr(bind6)]
pub fn pw_bind6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as above.
    let user = unsafe { &*ctx.sock_addr };
    let mut attempt = asked(&ctx, user);
    attempt.family = AF_INET6;
    attempt.address[..4].copy_from_slice(&user.user_ip6[0].to_ne_bytes());
    attempt.address[4..8].copy_from_slice(&user.user_ip6[1].to_ne_bytes());
    attempt.address[8..12].copy_from_slice(&user.user_ip6[2].to_ne_bytes());
    attempt.address[12..].copy_from_slice(&user.user_ip6[3].to_ne_bytes());
    remember(&ctx, user, attempt);
    ALLOW
}

/// Returns the attempt of a bind, for both families.
#[inline(always)]
fn asked(ctx: &SockAddrContext, user: &bpf_sock_addr) -> Attempt {
    let mut attempt = sock::empty();
    attempt.stage = stage::BIND;
    attempt.protocol = user.protocol as u16;
    attempt.port = u16::from_be(user.user_port as u16);
    // SAFETY: helpers that this program type may call on its own context.
    unsafe {
        attempt.socket_cookie = bpf_get_socket_cookie(ctx.as_ptr());
        attempt.netns_cookie = bpf_get_netns_cookie(ctx.as_ptr());
    }
    attempt
}

/// Adds the socket's options, and stores the attempt under the thread's id.
#[inline(always)]
fn remember(ctx: &SockAddrContext, user: &bpf_sock_addr, mut attempt: Attempt) {
    // SAFETY: `sk` is the context's socket pointer. The casts return a BTF pointer or null,
    // which is checked.
    let sk = unsafe {
        let sk = user.__bindgen_anon_1.sk;
        if sk.is_null() {
            core::ptr::null()
        } else if user.protocol == IPPROTO_TCP {
            bpf_skc_to_tcp_sock(sk.cast()).cast_const().cast::<Sock>()
        } else {
            bpf_skc_to_udp6_sock(sk.cast()).cast_const().cast::<Sock>()
        }
    };
    if sk.is_null() {
        // An IPv4 UDP socket has no such cast, so its options are read by `bpf_getsockopt`.
        reuse_by_getsockopt(ctx, &mut attempt);
    } else {
        let family = attempt.family;
        sock::describe(sk, &mut attempt);
        attempt.family = family;
    }
    store(&attempt);
}

#[inline(always)]
fn reuse_by_getsockopt(ctx: &SockAddrContext, attempt: &mut Attempt) {
    if offset!(helpers) & helper::BIND_OPTIONS == 0 {
        return;
    }
    let (Some(reuseaddr), Some(reuseport)) = (is_set(ctx, SO_REUSEADDR), is_set(ctx, SO_REUSEPORT))
    else {
        return;
    };
    attempt.flags |= flag::REUSE_KNOWN;
    if reuseaddr {
        attempt.flags |= flag::REUSEADDR;
    }
    if reuseport {
        attempt.flags |= flag::REUSEPORT;
    }
}

/// Returns a boolean socket option, or `None` if this kernel does not allow reading it.
#[inline(always)]
fn is_set(ctx: &SockAddrContext, option: i32) -> Option<bool> {
    let mut value = 0i32;
    // SAFETY: the value is an i32 on this program's stack.
    let failed =
        unsafe { bpf_getsockopt(ctx.as_ptr(), SOL_SOCKET, option, (&raw mut value).cast(), 4) };
    (failed == 0).then_some(value != 0)
}

#[inline(always)]
fn store(attempt: &Attempt) {
    if !call::is_for(attempt.stage) {
        return;
    }
    let thread = bpf_get_current_pid_tgid();
    // The entry of a thread is kept for its next attempt: a write to it costs a fifth of the
    // insertion and removal of a map entry.
    if let Some(place) = ATTEMPTS.get_ptr_mut(thread) {
        // SAFETY: only this thread writes its own entry, and it is running this program.
        unsafe {
            if is_unfinished(&*place, attempt.stage) && tree::has_current() {
                count_loss(loss::RETURN_SKIPPED);
            }
            if (*place).stage != stage::UNPROVABLE {
                let ended = (*place).ended;
                *place = *attempt;
                (*place).ended = ended;
            }
        }
        return;
    }
    if ATTEMPTS.insert(thread, attempt, 0).is_err() {
        count_loss(loss::ATTEMPT_UNRECORDED);
    }
}

/// Returns whether the end of the thread's previous call was not seen, because the kernel skipped
/// the programs there. While the agent starts, they are not there yet. Up to 5.14 it may be an
/// attempt that the kernel itself made. A listen of MPTCP makes two attempts in one call.
#[inline(always)]
fn is_unfinished(last: &Attempt, next: u8) -> bool {
    let is_a_calls = offset!(helpers) & helper::TASK_REGS != 0 && last.ended != 0;
    is_a_calls && (last.stage == stage::BIND || last.stage == stage::LISTEN && next == stage::BIND)
}

/// Records the attempt of a listen. `listen(2)` gets the port once more:
/// `inet_csk_listen_start` sets LISTEN first and then calls `get_port`.
///
/// match-proto: `void (const struct sock *sk, const int old, const int new)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn pw_set_state(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if old != i32::from(sock::TCP_CLOSE) || new != i32::from(sock::TCP_LISTEN) {
        return 0;
    }
    let sk: *const Sock = ctx.arg(0);
    let mut attempt = sock::empty();
    sock::describe(sk, &mut attempt);
    attempt.flags |= sock::port_asked_known();
    attempt.stage = stage::LISTEN;
    attempt.port = load!(sk, sk_num, u16);
    attempt.address = sock::address(sk, attempt.family);
    attempt.socket_cookie = sock::cookie(sk);
    store(&attempt);
    0
}

/// match-proto: `void (struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn pw_sys_exit(ctx: BtfTracePointContext) -> i32 {
    exited(&ctx, Turn::First)
}

/// The same program again, for kernels that preempt programs here (from 7.2 on). While a task
/// waits in the middle of a program, the kernel skips that program for every other task on the
/// processor (`bpf_prog_get_recursion_context`, include/linux/bpf.h).
///
/// match-proto: `void (struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn pw_sys_exit_again(ctx: BtfTracePointContext) -> i32 {
    exited(&ctx, Turn::Second)
}

/// Which of the two programs runs for a call that has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    /// Runs if the first program was skipped. Attempts that the first program has processed are
    /// no longer in the map. Only the first program counts failures without an attempt.
    Second,
}

#[inline(always)]
fn exited(ctx: &BtfTracePointContext, turn: Turn) -> i32 {
    let regs: *const Regs = ctx.arg(0);
    if call::may_be_one(call::number(regs)) {
        finish(ctx, regs, turn);
    }
    0
}

#[inline(always)]
fn finish(ctx: &BtfTracePointContext, regs: *const Regs, turn: Turn) {
    let result: i64 = ctx.arg(1);
    let refused = result == -EADDRINUSE && tree::has_current();
    let asked = call::asks_for(regs);
    if asked == stage::NONE {
        return;
    }
    let mut attempt = take(regs, turn);
    if attempt.stage != asked {
        if refused && turn == Turn::First {
            missing(ctx, regs, asked);
        }
        return;
    }
    if !is_this_calls(&attempt, regs) {
        return;
    }
    if refused {
        if attempt.netns_inode == 0 {
            attempt.netns_inode = inode_of_own_netns(attempt.netns_cookie);
        }
        report::refused(&attempt, &report::UNKNOWN);
    } else if result == 0 {
        let listens = attempt.stage == stage::LISTEN;
        if !(listens && record::is_known(attempt.socket_cookie, attempt.flags)) {
            record::agreed(&attempt);
        }
        if follow::is_active() {
            follow::bound(&attempt);
        }
    }
}

/// Counts a failed call whose attempt was not recorded.
#[inline(always)]
fn missing(ctx: &BtfTracePointContext, regs: *const Regs, asked: u8) {
    let family = if asked == stage::BIND { requested_family(regs) } else { AF_INET };
    // Other families return EADDRINUSE for other reasons.
    if family != AF_INET && family != AF_INET6 {
        return;
    }
    if call::may_be_answered_by_others() {
        count_not_attempted();
    } else {
        count_loss(loss::ATTEMPT_MISSING);
        debug!(ctx, "failed call without an attempt, family {}", family);
    }
}

/// Returns whether an attempt belongs to this call. Where an attempt could not be assigned to
/// the call when it was made (up to Linux 5.14), an attempt that the kernel itself made during
/// another call may remain. It does not belong to this call if the address family differs.
#[inline(always)]
fn is_this_calls(attempt: &Attempt, regs: *const Regs) -> bool {
    if offset!(helpers) & helper::TASK_REGS != 0 || attempt.stage == stage::LISTEN {
        return true;
    }
    let family = requested_family(regs);
    family == 0 || family == attempt.family
}

/// Returns this thread's attempt. If there is none, its stage is neither bind nor listen. The
/// attempt ends here on success too, so that a later failure of another kind (AF_UNIX) cannot
/// find it.
#[inline(always)]
fn take(regs: *const Regs, turn: Turn) -> Attempt {
    // Until the next call has ended, an attempt of an io_uring would look like an attempt of
    // that call.
    let unprovable = offset!(helpers) & helper::TASK_REGS != 0 && call::has_no_result(regs);
    let next = if unprovable { stage::UNPROVABLE } else { stage::NONE };
    let thread = bpf_get_current_pid_tgid();
    let Some(place) = ATTEMPTS.get_ptr_mut(thread) else {
        // Not an `Option`: the compiler may copy the undefined bytes of a `None`, which the
        // verifier rejects.
        let mut none = sock::empty();
        if unprovable {
            none.stage = stage::UNPROVABLE;
            let _ = ATTEMPTS.insert(thread, none, 0);
            none.stage = stage::NONE;
        }
        return none;
    };
    // SAFETY: only this thread writes its own entry, and it is running this program.
    unsafe {
        let mut attempt = *place;
        // The second program does not change what the first has left for the next call.
        if turn == Turn::First || matches!(attempt.stage, stage::BIND | stage::LISTEN) {
            (*place).stage = next;
            (*place).ended = 1;
        }
        attempt.ended = 0;
        attempt
    }
}

/// Returns the family in the caller's `sockaddr`, or 0 where it cannot be read.
#[inline(always)]
fn requested_family(regs: *const Regs) -> u16 {
    if offset!(helpers) & helper::READ_USER == 0 {
        return 0;
    }
    let mut address = call::address_of(regs);
    // SAFETY: the helper checks the user's addresses.
    unsafe {
        if address.is_second_of {
            let second = (address.at + 4) as *const u32;
            address.at = bpf_probe_read_user(second).map_or(0, u64::from);
        }
        bpf_probe_read_user(address.at as *const u16)
    }
    .unwrap_or(0)
}

/// Returns the inode of the current task's namespace, if its cookie is the socket's. The socket
/// may be older than the task's move to another namespace.
#[inline(always)]
fn inode_of_own_netns(cookie: u64) -> u32 {
    if offset!(helpers) & helper::CURRENT_TASK_BTF == 0 {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task_btf() }.cast_const();
    let nsproxy = load!(task, task_nsproxy, *const u8);
    let net = load!(nsproxy, nsproxy_net, *const sock::Net);
    let (inode, own) = sock::netns(net);
    if own == cookie { inode } else { 0 }
}
