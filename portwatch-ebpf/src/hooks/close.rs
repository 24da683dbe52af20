//! A listener's end, for the record: both sets of hooks have this one.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    record,
    sock::{self, Sock, TCP_LISTEN},
};

/// An accepted child shows LISTEN → SYN_RECV on a socket of its own, which is
/// not on record.
///
/// match-proto: `void (const struct sock *sk, const int old, const int new)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn pw_close(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if old == i32::from(TCP_LISTEN) && new == i32::from(sock::TCP_CLOSE) {
        let sk: *const Sock = ctx.arg(0);
        record::left(sock::cookie(sk));
    }
    0
}
