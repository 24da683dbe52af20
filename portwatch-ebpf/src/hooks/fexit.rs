//! The fexit set: exits of the functions that return the error.
//!
//! `get_port` is called through a function pointer, so inlining cannot hide it. While it runs,
//! the requested address and port are still in the socket; when `inet_bind` returns they are
//! zeroed again. `inet_bind` is hooked for the protocols with a bind function of their own
//! (SCTP, ping), and for binds for which the kernel skips the inner program because another
//! task is preempted in it.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::fexit, programs::FExitContext};
use portwatch_common::{Culprit, flag, stage};

use crate::{
    follow,
    layout::load,
    maps::{CULPRITS, REPORTED, Reported},
    record, report,
    sock::{self, AF_INET, Sock},
    task::now,
    tree,
};

const EADDRINUSE: i32 = 98;
/// Limit of the time from the exit of the inner function, or from a conflict check, to the exit
/// of the outer function, even if the task is preempted between the two.
const LONGEST_NS: u64 = 1_000_000_000;

/// match-proto: `int inet_csk_get_port(struct sock *sk, unsigned short snum)`
#[fexit(function = "inet_csk_get_port")]
pub fn pw_tcp_port(ctx: FExitContext) -> i32 {
    get_port_returned(&ctx)
}

/// match-proto: `int udp_v4_get_port(struct sock *sk, unsigned short snum)`
#[fexit(function = "udp_v4_get_port")]
pub fn pw_udp4_port(ctx: FExitContext) -> i32 {
    get_port_returned(&ctx)
}

/// match-proto: `int udp_v6_get_port(struct sock *sk, unsigned short snum)`
#[fexit(function = "udp_v6_get_port")]
pub fn pw_udp6_port(ctx: FExitContext) -> i32 {
    get_port_returned(&ctx)
}

/// A failure is 1 up to 5.15 and -EADDRINUSE from 6.1 on: anything except 0.
#[inline(always)]
fn get_port_returned(ctx: &FExitContext) -> i32 {
    let result: i32 = ctx.arg(2);
    if result != 0 && !tree::has_current() {
        return 0;
    }
    let sk: *const Sock = ctx.arg(0);
    let cookie = sock::cookie(sk);
    let listens = load!(sk, sk_state, u8) == sock::TCP_LISTEN;
    let port_asked_known = if listens { sock::port_asked_known() } else { 0 };
    let known =
        result == 0 && listens && record::is_known(cookie, sock::options(sk) | port_asked_known);
    if known && !follow::is_active() {
        return 0;
    }
    let mut attempt = sock::empty();
    sock::describe(sk, &mut attempt);
    attempt.flags |= port_asked_known;
    attempt.port = ctx.arg(1);
    attempt.address = sock::address(sk, attempt.family);
    attempt.socket_cookie = cookie;
    attempt.stage = if listens { stage::LISTEN } else { stage::BIND };
    if result == 0 {
        // The kernel binds on behalf of the current task, for example `ip link add`, which
        // does not use the port itself.
        if !sock::file(sk).1 {
            if !known {
                record::agreed(&attempt);
            }
            if follow::is_active() {
                follow::bound(&attempt);
            }
        }
        return 0;
    }
    report::refused(&attempt, &culprit_of(sk, cookie, attempt.port));
    // If the insertion fails, the failed bind may be reported twice.
    let reported = Reported { sk: sk as u64, cookie, at_ns: now() };
    let _ = REPORTED.insert(bpf_get_current_pid_tgid(), reported, 0);
    0
}

/// Returns the last conflict that the check found for this socket on this port. With port 0 the
/// kernel has checked the whole range, and the last conflict means nothing. An entry remains
/// after a conflict that did not make the bind fail. By now another socket may be at the same
/// address in memory, or this socket may bind to another port.
#[inline(always)]
fn culprit_of(sk: *const Sock, cookie: u64, port: u16) -> Culprit {
    // SAFETY: only this thread writes its own entry, and it is running this program.
    match unsafe { CULPRITS.get(bpf_get_current_pid_tgid()) } {
        Some(met)
            if met.by == sk as u64
                && met.cookie == cookie
                && met.port == port
                && now().wrapping_sub(met.at_ns) < LONGEST_NS =>
        {
            met.culprit
        }
        _ => report::UNKNOWN,
    }
}

/// match-proto: `int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "inet_bind")]
pub fn pw_inet_bind(ctx: FExitContext) -> i32 {
    bind_returned(&ctx)
}

/// match-proto: `int inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "inet6_bind")]
pub fn pw_inet6_bind(ctx: FExitContext) -> i32 {
    bind_returned(&ctx)
}

#[inline(always)]
fn bind_returned(ctx: &FExitContext) -> i32 {
    let result: i32 = ctx.arg(3);
    if result != -EADDRINUSE || !tree::has_current() {
        return 0;
    }
    let socket: *const u8 = ctx.arg(0);
    let sk = load!(socket, socket_sk, *const Sock);
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its own entry, and it is running this program.
    let reported = unsafe { REPORTED.get(thread) }.copied();
    if reported.is_some() {
        let _ = REPORTED.remove(thread);
    }
    let cookie = sock::cookie(sk);
    let is_this = |last: Reported| {
        last.sk == sk as u64 && last.cookie == cookie && now().wrapping_sub(last.at_ns) < LONGEST_NS
    };
    if reported.is_some_and(is_this) {
        return 0;
    }
    let mut attempt = sock::empty();
    sock::describe(sk, &mut attempt);
    attempt.stage = stage::BIND;
    attempt.socket_cookie = cookie;
    let address: *const SockAddr = ctx.arg(1);
    // SAFETY: the verifier knows the argument as `struct sockaddr`, 16 bytes.
    let (port, first) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*address).port),
            core::ptr::read_volatile(&raw const (*address).v4),
        )
    };
    attempt.port = u16::from_be(port);
    if attempt.family == AF_INET {
        attempt.address[..4].copy_from_slice(&first.to_ne_bytes());
    } else {
        attempt.flags |= flag::ADDRESS_UNSEEN;
    }
    report::refused(&attempt, &culprit_of(sk, cookie, attempt.port));
    0
}

/// The beginning of `sockaddr_in`. A `sockaddr_in6` has its port at the same offset, but its
/// address is beyond the bytes that the verifier lets a `sockaddr` pointer reach.
#[repr(C)]
struct SockAddr {
    family: u16,
    port: u16,
    v4: u32,
}
