//! Generates cookies of sockets and of their namespaces before the sockets bind. Up to Linux
//! 5.11 tracing programs can read a cookie, and only other program types can generate one.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};

use super::ALLOW;

/// match-proto: BPF_CGROUP_RUN_PROG_INET4_BIND in `__inet_bind`.
#[cgroup_sock_addr(bind4)]
pub fn pw_cookie4(ctx: SockAddrContext) -> i32 {
    ask(&ctx)
}

/// match-proto: BPF_CGROUP_RUN_PROG_INET6_BIND in `__inet6_bind`.
#[cgroup_sock_addr(bind6)]
pub fn pw_cookie6(ctx: SockAddrContext) -> i32 {
    ask(&ctx)
}

#[inline(always)]
fn ask(ctx: &SockAddrContext) -> i32 {
    // SAFETY: helpers that this program type may call on its own context. The cookies stay in
    // the socket and in its namespace.
    unsafe {
        bpf_get_socket_cookie(ctx.as_ptr());
        bpf_get_netns_cookie(ctx.as_ptr());
    }
    ALLOW
}
