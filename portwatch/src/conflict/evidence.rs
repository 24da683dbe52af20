//! Applies the rule to what is known about a failed bind. The kernel does not report the reuse
//! flags of the other socket, so the result has three values: the rule is applied to every
//! combination of the unknown flags.

use std::net::IpAddr;

use crate::{
    conflict::{
        Clause, Kernel,
        address::{End, Overlap, Wildcards, equal, how},
        rule::{self, Ask, Phase, Sock},
    },
    evidence::{Device, Failure, Family, Protocol, Socket, State},
};

/// Whether one socket blocks a bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does, by this clause.
    Refuses(Clause),
    /// It may, depending on flags that are not visible. The clause says how.
    MayRefuse(Clause),
    /// It does not.
    Allows,
}

/// Applies a kernel's rule for `failure` to one other socket on the same port.
pub fn judge(kernel: Kernel, failure: &Failure, other: &Socket) -> Verdict {
    let mut allowed = false;
    let mut refused = None;
    for (sk, holder) in possible(failure, other) {
        match ask(kernel, failure, &sk, &holder) {
            Some(clause) => refused = Some(refused.map_or(clause, |first| either(first, clause))),
            None => allowed = true,
        }
    }
    // A connection request is listed with the owners of the port but is not one of them. Only a
    // rare kind of child socket is listed like a request.
    allowed |= other.state == State::SynRecv;
    match (refused, allowed) {
        (Some(clause), false) => Verdict::Refuses(clause),
        (Some(clause), true) => Verdict::MayRefuse(clause),
        (None, _) => Verdict::Allows,
    }
}

/// Returns the clause if either of two may apply and it is unknown which one. A listener blocks
/// whatever its options are.
fn either(a: Clause, b: Clause) -> Clause {
    use Clause::{
        BindLacksReuseAddr, HolderLacksReuseAddr, HolderLacksReusePort, OneLacksReuseAddr,
        ReusePortNotShared, ReusePortOfOtherUser,
    };
    match (a.min(b), a.max(b)) {
        (BindLacksReuseAddr, HolderLacksReuseAddr) => OneLacksReuseAddr,
        (ReusePortOfOtherUser, HolderLacksReusePort) => ReusePortNotShared,
        (first, unclear @ (OneLacksReuseAddr | ReusePortNotShared)) if first != unclear => unclear,
        (first, _) => first,
    }
}

/// Returns the clause by which `other` has blocked the bind although [`judge`] allows it: what
/// is known about one of the two sockets has changed or is incomplete.
pub fn clause(failure: &Failure, other: &Socket) -> Clause {
    let clauses = possible(failure, other).map(|(sk, holder)| rule::clause(&sk, &holder));
    clauses.reduce(either).unwrap_or(Clause::BindLacksReuseAddr)
}

/// Returns whether the addresses overlap (`inet_rcv_saddr_equal`), and how. A socket that is
/// not known to be IPv6 only includes IPv4.
pub fn overlap(failure: &Failure, other: &Socket) -> Option<Overlap> {
    let bind = End::new(failure.family, failure.address, failure.v6only == Some(true));
    let holder = End::new(family(other), other.local.ip(), other.v6only == Some(true));
    equal(bind, holder, Wildcards::Both).then(|| how(bind, holder))
}

fn ask(kernel: Kernel, failure: &Failure, sk: &Sock, holder: &Sock) -> Option<Clause> {
    match (failure.protocol, failure.port) {
        (Protocol::Tcp, 0) => rule::tcp_refuses(kernel, sk, holder, Ask::Any),
        (Protocol::Tcp, _) => rule::tcp_refuses(kernel, sk, holder, Ask::Port),
        _ => rule::udp_refuses(sk, holder),
    }
}

/// Returns every pair of bind and holder that agrees with what is known.
fn possible(failure: &Failure, other: &Socket) -> impl Iterator<Item = (Sock, Sock)> {
    let bind = [failure.reuseaddr, failure.reuseport, v6only(failure.family, failure.v6only)];
    let holder = [other.reuseaddr, other.reuseport, v6only(family(other), other.v6only)];
    let same_user = failure.uid.zip(other.uid).map(|(bind, holder)| bind == holder);
    let is_minisock = is_minisock(other);
    assignments(bind).flat_map(move |flags| {
        let uid = failure.uid.unwrap_or_default();
        let sk = sock(failure.family, failure.address, &failure.device, flags, uid);
        assignments(holder).flat_map(move |flags| {
            let holder = sock(family(other), other.local.ip(), &other.device, flags, uid);
            assignments([same_user, is_minisock]).map(move |[same_user, is_minisock]| {
                let uid = if same_user { uid } else { !uid };
                let phase = match other.state {
                    State::Listen => Phase::Listens,
                    _ if is_minisock => Phase::TimeWait,
                    _ => Phase::Open,
                };
                (sk, Sock { uid, phase, ..holder })
            })
        })
    })
}

fn sock(
    family: Family,
    address: IpAddr,
    device: &Option<Device>,
    [reuseaddr, reuseport, v6only]: [bool; 3],
    uid: u32,
) -> Sock {
    Sock {
        end: End::new(family, address, v6only),
        device: device.as_ref().map_or(0, |device| device.index),
        reuseaddr,
        reuseport,
        uid,
        phase: Phase::Open,
    }
}

fn family(socket: &Socket) -> Family {
    Family::of(socket.local.ip())
}

fn v6only(family: Family, known: Option<bool>) -> Option<bool> {
    if family == Family::Ipv4 { Some(false) } else { known }
}

/// Returns whether the kernel keeps only a minisock of it (`tcp_time_wait`). It does for an
/// orphan in FIN-WAIT-2, unless its time there is longer than that of TIME-WAIT. sock_diag
/// reports the timer of a minisock as one of its own kind.
fn is_minisock(socket: &Socket) -> Option<bool> {
    match socket.state {
        State::TimeWait => Some(true),
        State::FinWait2 if socket.inode.is_none() => socket.expires_ms.map(|_| true),
        _ => Some(false),
    }
}

/// Returns all values that the unknown elements of `known` can have.
fn assignments<const N: usize>(known: [Option<bool>; N]) -> impl Iterator<Item = [bool; N]> {
    let unknown = known.iter().filter(|value| value.is_none()).count();
    (0u32..1 << unknown).map(move |mut choices| {
        known.map(|value| {
            value.unwrap_or_else(|| {
                let choice = choices & 1 == 1;
                choices >>= 1;
                choice
            })
        })
    })
}
