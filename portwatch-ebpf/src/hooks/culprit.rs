//! Finds the blocking socket, at the exits of the kernel's own check ([`crate::conflict`]).

use aya_ebpf::{macros::fexit, programs::FExitContext};

use crate::{conflict, sock::Sock};

/// From 6.1 on. `kuid_t` is a struct of 4 bytes passed in a register.
///
/// match-proto: `bool inet_bind_conflict(const struct sock *sk, struct sock *sk2,
/// kuid_t sk_uid, bool relax, bool reuseport_cb_ok, bool reuseport_ok)`
#[fexit(function = "inet_bind_conflict")]
pub fn pw_conflict(ctx: FExitContext) -> i32 {
    if conflict::is_true(ctx.arg(6)) {
        conflict::met::<*const Sock>(ctx.arg(0), ctx.arg(1));
    }
    0
}

/// Called last by the checks for TCP up to 5.x and for UDP, and for wildcard addresses by the
/// newer check for TCP. Without `match_wildcard` the caller is not a conflict check: it looks
/// for a SO_REUSEPORT group to join.
///
/// match-proto: `bool inet_rcv_saddr_equal(const struct sock *sk,
/// const struct sock *sk2, bool match_wildcard)`
#[fexit(function = "inet_rcv_saddr_equal")]
pub fn pw_same_addr(ctx: FExitContext) -> i32 {
    if conflict::is_true(ctx.arg(2)) && conflict::is_true(ctx.arg(3)) {
        conflict::met::<*const Sock>(ctx.arg(0), ctx.arg(1));
    }
    0
}
