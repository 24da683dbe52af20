//! Finds the blocking socket. The kernel's own conflict check compares it under the lock of the
//! port's bucket, so what is read here is true at that instant.
//!
//! The check iterates over the sockets on the port and ends at the first conflict. So the
//! blocking socket is the last one for which one of these functions returned true before
//! `get_port` failed.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::fexit, programs::FExitContext};
use portwatch_common::{Culprit, flag};

use crate::{
    layout::load,
    maps::{CULPRITS, Met},
    sock::{self, Sock},
    task::now,
};

/// `TCP_TIME_WAIT` (include/net/tcp_states.h).
const TCP_TIME_WAIT: u8 = 6;

/// From 6.1 on. `kuid_t` is a struct of 4 bytes passed in a register.
///
/// match-proto: `bool inet_bind_conflict(const struct sock *sk, struct sock *sk2,
/// kuid_t sk_uid, bool relax, bool reuseport_cb_ok, bool reuseport_ok)`
#[fexit(function = "inet_bind_conflict")]
pub fn pw_conflict(ctx: FExitContext) -> i32 {
    if is_true(ctx.arg(6)) {
        meet(ctx.arg(0), ctx.arg(1));
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
    if is_true(ctx.arg(2)) && is_true(ctx.arg(3)) {
        meet(ctx.arg(0), ctx.arg(1));
    }
    0
}

/// A C `bool` is the lowest byte of its register.
#[inline(always)]
fn is_true(register: u64) -> bool {
    register & 0xff != 0
}

#[inline(always)]
fn meet(sk: *const Sock, other: *const Sock) {
    let family = load!(other, sk_family, u16);
    let state = load!(other, sk_state, u8);
    let mut culprit = Culprit {
        socket_cookie: sock::cookie(other),
        inode: 0,
        address: sock::address(other, family),
        uid: 0,
        device: load!(other, sk_bound_dev_if, u32),
        family,
        flags: sock::options(other) | flag::DEVICE_KNOWN,
        state,
        reserved: [0; 3],
    };
    // In TIME-WAIT it is an `inet_timewait_sock`, which shares only `sock_common` with `struct
    // sock`.
    if state != TCP_TIME_WAIT {
        culprit.uid = load!(other, sk_uid, u32);
        culprit.flags |= flag::UID_KNOWN;
        let (inode, kernels_own) = sock::file(other);
        culprit.inode = inode;
        if kernels_own {
            culprit.flags |= flag::KERNELS_OWN;
        }
    }
    let met = Met {
        by: sk as u64,
        cookie: sock::cookie(sk),
        at_ns: now(),
        port: load!(other, sk_num, u16),
        reserved: [0; 6],
        culprit,
    };
    // Without an entry the event names no blocking socket, and user space determines it.
    let _ = CULPRITS.insert(bpf_get_current_pid_tgid(), met, 0);
}
