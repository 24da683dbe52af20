//! What the returns of the kernel's functions say. `get_port` has the requested address and
//! port still in the socket; when `inet_bind` returns they are zeroed again. `inet_bind` is
//! watched for the protocols with a bind function of their own (SCTP, ping), and for binds for
//! which the kernel skips the inner program because another task is preempted in it.
//!
//! The hooks differ in what the verifier knows of their arguments ([`Pointer`]).

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use portwatch_common::{Culprit, flag, stage};

use crate::{
    binds, follow,
    layout::{Pointer, load},
    maps::{CULPRITS, REPORTED, Reported},
    record, report,
    sock::{self, AF_INET, AF_INET6, Sock},
    task::now,
    tree,
};

const EADDRINUSE: i32 = 98;
/// Limit of the time from the exit of the inner function, or from a conflict check, to the exit
/// of the outer function, even if the task is preempted between the two.
const LONGEST_NS: u64 = 1_000_000_000;
/// The offsets in `sockaddr_in` and `sockaddr_in6` (include/uapi/linux/in.h, in6.h).
const FAMILY: u32 = 0;
const PORT: u32 = 2;
const V4: u32 = 4;
const V6: u32 = 8;

/// A `get_port` function has returned for port `snum`. A failure is 1 up to 5.15 and
/// -EADDRINUSE from 6.1 on: anything except 0.
#[inline(always)]
pub fn got_port<P: Pointer>(sk: P, snum: u16, result: i32) {
    if result != 0 && !tree::has_current() {
        return;
    }
    binds::end();
    let cookie = sock::cookie(sk);
    let listens = load!(sk, sk_state, u8) == sock::TCP_LISTEN;
    let port_asked_known = if listens { sock::port_asked_known() } else { 0 };
    let known =
        result == 0 && listens && record::is_known(cookie, sock::options(sk) | port_asked_known);
    if known && !follow::is_active() {
        return;
    }
    let mut attempt = sock::empty();
    sock::describe(sk, &mut attempt);
    attempt.flags |= port_asked_known;
    attempt.port = snum;
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
        return;
    }
    report::refused(&attempt, &culprit_of(sk, cookie, attempt.port));
    // If the insertion fails, the failed bind may be reported twice.
    let bind = binds::number();
    let reported = Reported { sk: sk.address() as u64, cookie, bind, at_ns: now() };
    let _ = REPORTED.insert(bpf_get_current_pid_tgid(), reported, 0);
}

/// Returns the last conflict that the check found for this socket on this port. With port 0 the
/// kernel has checked the whole range, and the last conflict means nothing. An entry remains
/// after a conflict that did not make the bind fail. By now another socket may be at the same
/// address in memory, or this socket may bind to another port.
#[inline(always)]
fn culprit_of(sk: impl Pointer, cookie: u64, port: u16) -> Culprit {
    // SAFETY: only this thread writes its own entry, and it is running this program.
    match unsafe { CULPRITS.get(bpf_get_current_pid_tgid()) } {
        Some(met)
            if met.by == sk.address() as u64
                && met.cookie == cookie
                && met.port == port
                && now().wrapping_sub(met.at_ns) < LONGEST_NS =>
        {
            met.culprit
        }
        _ => report::UNKNOWN,
    }
}

/// Returns whether a bind with this result of a thread whose failed binds are reported has failed,
/// and `get_port` has not reported it just before.
#[inline(always)]
pub fn is_unreported(result: i32) -> bool {
    if result != -EADDRINUSE || !tree::has_current() {
        return false;
    }
    // SAFETY: only this thread writes its own entry, and it is running this program.
    let reported = unsafe { REPORTED.get(bpf_get_current_pid_tgid()) };
    let is_this = |last: &Reported| {
        last.bind == binds::number() && now().wrapping_sub(last.at_ns) < LONGEST_NS
    };
    !reported.is_some_and(is_this)
}

/// `inet_bind` or `inet6_bind` has returned for a socket and the address that was asked for.
#[inline(always)]
pub fn bound<P: Pointer>(socket: P, address: P, result: i32) {
    let refused = result == -EADDRINUSE;
    if refused && !tree::has_current() {
        return;
    }
    binds::end();
    if !refused {
        return;
    }
    let sk = load!(socket, socket_sk, P::To<Sock>);
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes its own entry, and it is running this program.
    let reported = unsafe { REPORTED.get(thread) }.copied();
    if reported.is_some() {
        let _ = REPORTED.remove(thread);
    }
    let cookie = sock::cookie(sk);
    let is_this = |last: Reported| {
        last.sk == sk.address() as u64
            && last.cookie == cookie
            && last.bind == binds::number()
            && now().wrapping_sub(last.at_ns) < LONGEST_NS
    };
    if reported.is_some_and(is_this) {
        return;
    }
    let mut attempt = sock::empty();
    sock::describe(sk, &mut attempt);
    attempt.stage = stage::BIND;
    attempt.socket_cookie = cookie;
    attempt.port = u16::from_be(address.load(PORT));
    if attempt.family == AF_INET {
        attempt.address[..4].copy_from_slice(&address.load::<u32>(V4).to_ne_bytes());
    } else if P::TYPED || address.load::<u16>(FAMILY) != AF_INET6 {
        // The verifier knows the argument as `struct sockaddr`, 16 bytes. An IPv6 socket of SCTP
        // may be bound to an IPv4 address.
        attempt.flags |= flag::ADDRESS_UNSEEN;
    } else {
        attempt.address[..8].copy_from_slice(&address.load::<u64>(V6).to_ne_bytes());
        attempt.address[8..].copy_from_slice(&address.load::<u64>(V6 + 8).to_ne_bytes());
    }
    report::refused(&attempt, &culprit_of(sk, cookie, attempt.port));
}
