//! Notifies `portwatch wait` that a socket is about to listen on a port. It is loaded alone,
//! with its own ring.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    layout::load,
    maps::FAILURES,
    sock::{self, Sock},
};

/// `inet_csk_listen_start` sets the state before it gets the port, so the waiting process
/// checks again. If the ring is full, it already contains a reason to check.
///
/// match-proto: `void (const struct sock *sk, const int old, const int new)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn pw_listens(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if old == i32::from(sock::TCP_CLOSE) && new == i32::from(sock::TCP_LISTEN) {
        let sk: *const Sock = ctx.arg(0);
        let port = u64::from(load!(sk, sk_num, u16));
        let _ = FAILURES.output::<u64>(&port, 0);
    }
    0
}
