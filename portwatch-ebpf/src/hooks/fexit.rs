//! The fexit set: exits of the functions that return the error ([`crate::exits`]). `get_port` is
//! called through a function pointer, so inlining cannot hide it.

use aya_ebpf::{macros::fexit, programs::FExitContext};

use crate::{exits, sock::Sock};

/// match-proto: `int inet_csk_get_port(struct sock *sk, unsigned short snum)`
#[fexit(function = "inet_csk_get_port")]
pub fn pw_tcp_port(ctx: FExitContext) -> i32 {
    got_port(&ctx)
}

/// match-proto: `int udp_v4_get_port(struct sock *sk, unsigned short snum)`
#[fexit(function = "udp_v4_get_port")]
pub fn pw_udp4_port(ctx: FExitContext) -> i32 {
    got_port(&ctx)
}

/// match-proto: `int udp_v6_get_port(struct sock *sk, unsigned short snum)`
#[fexit(function = "udp_v6_get_port")]
pub fn pw_udp6_port(ctx: FExitContext) -> i32 {
    got_port(&ctx)
}

#[inline(always)]
fn got_port(ctx: &FExitContext) -> i32 {
    exits::got_port::<*const Sock>(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// match-proto: `int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "inet_bind")]
pub fn pw_inet_bind(ctx: FExitContext) -> i32 {
    bound(&ctx)
}

/// match-proto: `int inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)`
#[fexit(function = "inet6_bind")]
pub fn pw_inet6_bind(ctx: FExitContext) -> i32 {
    bound(&ctx)
}

#[inline(always)]
fn bound(ctx: &FExitContext) -> i32 {
    exits::bound::<*const u8>(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}
