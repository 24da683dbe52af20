//! Handles state changes of TCP sockets that the owner [`record`] needs. All hook sets contain
//! this program.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    connection,
    layout::load,
    record,
    sock::{self, Sock},
};

/// Records the close of a listener, and the start of every connection. All later states of a
/// connection, including TIME-WAIT, follow that start. The [`connection`]'s options are read at
/// each change. An accepted child shows LISTEN → SYN_RECV on a socket of its own, which is not
/// recorded.
///
/// match-proto: `void (const struct sock *sk, const int old, const int new)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn pw_state(ctx: BtfTracePointContext) -> i32 {
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let sk: *const Sock = ctx.arg(0);
    if new == i32::from(sock::TCP_ESTABLISHED) {
        // Only the end that opened the connection comes from SYN-SENT.
        record::connected(load!(sk, sk_num, u16), old == i32::from(sock::TCP_SYN_SENT));
    } else if old == i32::from(sock::TCP_LISTEN) && new == i32::from(sock::TCP_CLOSE) {
        record::left(sock::cookie(sk));
    }
    connection::changed(sk, old, new);
    0
}
