//! The kernel's bind-conflict rules as a pure function: would this socket have
//! refused that bind, and by which clause?
//!
//! Sources, read in 5.10 to 6.18: `inet_bind_conflict`, `inet_csk_bind_conflict`
//! and `inet_rcv_saddr_equal` (net/ipv4/inet_connection_sock.c),
//! `udp_lib_lport_inuse` (net/ipv4/udp.c). These are the rules for an explicit
//! port and for listen, where the kernel asks with `relax` and `reuseport_ok`.
//! The kernel tells nobody the reuse flags of the other socket, so the answer
//! has three values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::evidence::{Failure, Family, Protocol, Socket, State};

/// Whether one socket refuses a bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does, by this clause.
    Refuses(Clause),
    /// It does if the flags that nobody can see are so; the clause says how.
    MayRefuse(Clause),
    /// It does not.
    Allows,
}

/// The clause of the rule that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Clause {
    /// A listener, and SO_REUSEPORT is on neither side.
    Listens,
    /// A listener, although the bind has SO_REUSEADDR.
    ListensDespiteReuseAddr,
    /// A socket that does not listen, and the bind lacks SO_REUSEADDR.
    BindLacksReuseAddr,
    /// A socket that does not listen and itself lacks SO_REUSEADDR.
    HolderLacksReuseAddr,
    /// Both have SO_REUSEPORT, for different users.
    ReusePortOfOtherUser,
    /// The bind has SO_REUSEPORT, the holder has not.
    HolderLacksReusePort,
    /// The holder has SO_REUSEPORT, the bind has not.
    BindLacksReusePort,
}

impl Clause {
    /// The clause in words, to be read after the name of the socket.
    pub fn words(self) -> &'static str {
        match self {
            Self::Listens => "listens, and SO_REUSEPORT is not set on both sockets",
            Self::ListensDespiteReuseAddr => {
                "listens; SO_REUSEADDR never lets a bind pass a socket that listens"
            }
            Self::BindLacksReuseAddr => {
                "blocks any bind without SO_REUSEADDR, and this bind does not set it"
            }
            Self::HolderLacksReuseAddr => {
                "was made without SO_REUSEADDR; it takes both sockets to have it, and this bind has"
            }
            Self::ReusePortOfOtherUser => {
                "has SO_REUSEPORT as this bind has, but it belongs to another user"
            }
            Self::HolderLacksReusePort => {
                "lacks SO_REUSEPORT; it takes both sockets to have it, and this bind has"
            }
            Self::BindLacksReusePort => {
                "has SO_REUSEPORT; it takes both sockets to have it, and this bind does not set it"
            }
        }
    }
}

/// How the addresses of holder and bind meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The same address of one family.
    Same,
    /// The holder has the wildcard, the bind a specific address.
    HolderWildcard,
    /// The bind wants the wildcard, the holder has a specific address.
    BindWildcard,
    /// One is an IPv6 wildcard that takes in IPv4, the other is IPv4.
    DualStack,
}

/// Applies the rule for `failure` to one other socket on the same port.
pub fn judge(failure: &Failure, other: &Socket) -> Verdict {
    if overlap(failure, other).is_none() || on_other_device(failure, other) {
        return Verdict::Allows;
    }
    // `sk_reuse && sk2_reuse && sk2_state != TCP_LISTEN` lets TCP pass;
    // for UDP `(!sk2->sk_reuse || !sk->sk_reuse)` refuses, in any state.
    let listens = failure.protocol == Protocol::Tcp && other.state == State::Listen;
    let reuse = if listens { Some(false) } else { both(failure.reuseaddr, other.reuseaddr) };
    match (reuse, reuseport(failure, other)) {
        (Some(true), _) | (_, Some(true)) => Verdict::Allows,
        (Some(false), Some(false)) => Verdict::Refuses(clause(failure, other)),
        _ => Verdict::MayRefuse(clause(failure, other)),
    }
}

/// The clause by which `other` refuses, given that it does.
pub fn clause(failure: &Failure, other: &Socket) -> Clause {
    if failure.protocol != Protocol::Tcp {
        return match failure.reuseaddr {
            Some(true) => Clause::HolderLacksReuseAddr,
            _ => Clause::BindLacksReuseAddr,
        };
    }
    if let Some(clause) = clause_reuseport(failure, other) {
        return clause;
    }
    match (other.state == State::Listen, failure.reuseaddr) {
        (true, Some(true)) => Clause::ListensDespiteReuseAddr,
        (true, _) => Clause::Listens,
        (false, Some(true)) => Clause::HolderLacksReuseAddr,
        (false, _) => Clause::BindLacksReuseAddr,
    }
}

/// Two values of an `Option<bool>` pair, as far as they are known.
fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// Whether SO_REUSEPORT lets the bind pass.
fn reuseport(failure: &Failure, other: &Socket) -> Option<bool> {
    let same_user = if other.state == State::TimeWait {
        // TIME-WAIT has no owner; the kernel does not ask.
        Some(true)
    } else {
        match (failure.uid, other.uid) {
            (Some(a), Some(b)) => Some(a == b),
            _ => None,
        }
    };
    both(both(failure.reuseport, other.reuseport), same_user)
}

/// The clause about SO_REUSEPORT, if either side meant to use it.
fn clause_reuseport(failure: &Failure, other: &Socket) -> Option<Clause> {
    let other_user = matches!((failure.uid, other.uid), (Some(a), Some(b)) if a != b);
    match (failure.reuseport, other.reuseport) {
        // The holder's flag is unknown; a different user is what can be shown.
        (Some(true), Some(true) | None) if other_user && other.state != State::TimeWait => {
            Some(Clause::ReusePortOfOtherUser)
        }
        (Some(true), Some(false) | None) => Some(Clause::HolderLacksReusePort),
        (Some(false), Some(true)) if other.state == State::Listen => {
            Some(Clause::BindLacksReusePort)
        }
        _ => None,
    }
}

/// Devices keep sockets apart only where both are bound to one.
fn on_other_device(failure: &Failure, other: &Socket) -> bool {
    matches!((&failure.device, &other.device), (Some(a), Some(b)) if a.index != b.index)
}

/// `inet_rcv_saddr_equal` with both wildcards matching: whether the addresses
/// meet, and how.
pub fn overlap(failure: &Failure, other: &Socket) -> Option<Overlap> {
    let bind = End {
        family: failure.family,
        address: failure.address,
        v6only: failure.v6only == Some(true),
    };
    let holder = End {
        family: if other.local.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 },
        address: other.local.ip(),
        v6only: other.v6only == Some(true),
    };
    equal(bind, holder).then(|| how(bind, holder))
}

#[derive(Clone, Copy)]
struct End {
    family: Family,
    address: IpAddr,
    v6only: bool,
}

/// The kernel's `ipv6_addr_type`, as far as the rule asks for it. An AF_INET
/// socket counts as mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Mapped,
    Other,
}

impl End {
    fn kind(self) -> Kind {
        match self.address {
            IpAddr::V4(_) => Kind::Mapped,
            IpAddr::V6(address) if address == Ipv6Addr::UNSPECIFIED => Kind::Any,
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => Kind::Mapped,
            IpAddr::V6(_) => Kind::Other,
        }
    }

    /// The IPv4 address that the kernel keeps beside a v6 one: LOOPBACK4_IPV6
    /// (127.0.0.6) stands for any that is not mapped.
    fn v4(self) -> Ipv4Addr {
        match self.address {
            IpAddr::V4(address) => address,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv4Addr::UNSPECIFIED,
            IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::new(127, 0, 0, 6)),
        }
    }

    fn wildcard(self) -> bool {
        self.v4().is_unspecified()
    }
}

fn equal(bind: End, holder: End) -> bool {
    if bind.family == Family::Ipv4 || (bind.kind() == Kind::Mapped && holder.kind() == Kind::Mapped)
    {
        let (a, b) = (bind.v4(), holder.v4());
        return !holder.v6only && (a == b || a.is_unspecified() || b.is_unspecified());
    }
    match (bind.kind(), holder.kind()) {
        (Kind::Any, Kind::Any) => true,
        (kind, Kind::Any) if !(holder.v6only && kind == Kind::Mapped) => true,
        (Kind::Any, kind) if !(bind.v6only && kind == Kind::Mapped) => true,
        _ => holder.family == Family::Ipv6 && bind.address == holder.address,
    }
}

fn how(bind: End, holder: End) -> Overlap {
    let across = |wide: End, narrow: End| {
        wide.family == Family::Ipv6 && wide.wildcard() && narrow.kind() == Kind::Mapped
    };
    if across(bind, holder) || across(holder, bind) {
        Overlap::DualStack
    } else {
        match (bind.wildcard(), holder.wildcard()) {
            (true, false) => Overlap::BindWildcard,
            (false, true) => Overlap::HolderWildcard,
            _ => Overlap::Same,
        }
    }
}

#[cfg(test)]
mod tests;
