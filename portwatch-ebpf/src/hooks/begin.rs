//! The beginnings of binds ([`crate::binds`]), for the fexit and kprobe set.

use aya_ebpf::{helpers::bpf_skc_to_tcp_sock, macros::cgroup_sock_addr, programs::SockAddrContext};
use portwatch_common::loss;

use super::ALLOW;
use crate::{
    binds,
    maps::count_loss,
    sock::{self, IPPROTO_TCP, Sock},
    tree,
};

/// match-proto: BPF_CGROUP_RUN_PROG_INET4_BIND in `inet_bind_sk`.
#[cgroup_sock_addr(bind4)]
pub fn pw_begin4(ctx: SockAddrContext) -> i32 {
    begins(&ctx)
}

/// match-proto: BPF_CGROUP_RUN_PROG_INET6_BIND in `inet6_bind_sk`.
#[cgroup_sock_addr(bind6)]
pub fn pw_begin6(ctx: SockAddrContext) -> i32 {
    begins(&ctx)
}

#[inline(always)]
fn begins(ctx: &SockAddrContext) -> i32 {
    if tree::has_current() && !is_kernels_own(ctx) && binds::begin() {
        // It may have failed.
        count_loss(loss::RETURN_SKIPPED);
    }
    ALLOW
}

/// Returns whether it is the TCP socket inside an MPTCP socket, or another one of the kernel's own.
/// Their binds do not all pass a function whose end is watched.
#[inline(always)]
fn is_kernels_own(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is valid for the whole program, and `sk` is its socket pointer. The cast
    // returns a BTF pointer or null, which is checked.
    let sk = unsafe {
        let user = &*ctx.sock_addr;
        let sk = user.__bindgen_anon_1.sk;
        if sk.is_null() || user.protocol != IPPROTO_TCP {
            return false;
        }
        bpf_skc_to_tcp_sock(sk.cast()).cast_const().cast::<Sock>()
    };
    !sk.is_null() && sock::file(sk).1
}
