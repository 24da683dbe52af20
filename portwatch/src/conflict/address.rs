//! Whether the addresses of two sockets overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{conflict::Kernel, evidence::Family};

/// A socket's address, as the kernel compares it. An IPv4 address belongs to an `AF_INET`
/// socket; those of `AF_INET6` sockets are IPv6 addresses, also v4-mapped ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// `sk_rcv_saddr` or `sk_v6_rcv_saddr`.
    pub address: IpAddr,
    /// `sk_ipv6only`. A bind to a specific IPv6 address sets it
    /// (`__inet6_bind`).
    pub v6only: bool,
}

/// How the addresses of holder and bind overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The same address of one family.
    Same,
    /// The holder has the wildcard, the bind a specific address.
    HolderWildcard,
    /// The bind requests the wildcard, the holder has a specific address.
    BindWildcard,
    /// One is an IPv6 wildcard that includes IPv4, the other is IPv4.
    DualStack,
}

/// The kernel's `ipv6_addr_type`, as far as the rule needs it. An `AF_INET` socket counts as
/// mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Mapped,
    Other,
}

/// The IPv4 address that the kernel stores for an IPv6 address without an IPv4 equivalent
/// (LOOPBACK4_IPV6).
const NO_EQUIVALENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

impl End {
    /// Creates the end of a socket of `family`, in whichever form its address is written.
    pub fn new(family: Family, address: IpAddr, v6only: bool) -> Self {
        match (family, address) {
            (Family::Ipv6, IpAddr::V4(v4)) => {
                Self { address: v4.to_ipv6_mapped().into(), v6only: false }
            }
            (Family::Ipv6, IpAddr::V6(_)) => Self { address, v6only },
            (Family::Ipv4, _) => Self { address, v6only: false },
        }
    }

    fn kind(self) -> Kind {
        match self.address {
            IpAddr::V4(_) => Kind::Mapped,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Kind::Any,
            IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => Kind::Mapped,
            IpAddr::V6(_) => Kind::Other,
        }
    }

    fn v4(self) -> Ipv4Addr {
        match self.address {
            IpAddr::V4(address) => address,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv4Addr::UNSPECIFIED,
            IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(NO_EQUIVALENT),
        }
    }

    /// Returns the address by which the second hashes store a socket. An IPv4 address and its
    /// mapped form have the same one.
    pub fn key(self) -> Ipv6Addr {
        match self.address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        }
    }

    /// Returns whether it includes every address: `0.0.0.0`, `::` or `::ffff:0.0.0.0`.
    pub fn is_wildcard(self) -> bool {
        self.v4().is_unspecified()
    }

    /// Returns whether it is an IPv4 address, mapped or not.
    fn is_v4(self) -> bool {
        self.kind() == Kind::Mapped
    }
}

/// Which of two wildcard addresses matches every address of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wildcards {
    /// Both do. This is the check of a bind.
    Both,
    /// Only the first does. This says whether packets to the second's address arrive at the
    /// first. TCP's fast path checks this too (`sk_reuseport_match`).
    First,
}

/// Implements `inet_rcv_saddr_equal`. It is not symmetric: an IPv6-only first socket receives
/// nothing from IPv4, but between two IPv4 addresses only the second one's flag counts.
pub fn equal(first: End, second: End, wildcards: Wildcards) -> bool {
    let wide2 = wildcards == Wildcards::Both;
    let both_v4 = first.is_v4() && second.is_v4();
    if first.address.is_ipv4() || both_v4 {
        let (a, b) = (first.v4(), second.v4());
        let meet = a == b || a.is_unspecified() || (wide2 && b.is_unspecified());
        return !second.v6only && meet;
    }
    match (first.kind(), second.kind()) {
        (Kind::Any, Kind::Any) => true,
        (kind, Kind::Any) if wide2 && !(second.v6only && kind == Kind::Mapped) => true,
        (Kind::Any, kind) if !(first.v6only && kind == Kind::Mapped) => true,
        _ => first.address == second.address,
    }
}

/// Returns whether a TCP bind of `bind` conflicts with `holder`'s address.
pub fn tcp_meet(kernel: Kernel, bind: End, holder: End) -> bool {
    // inet_use_hash2_on_bind. Before 6.8 a v4-mapped address was compared with all owners, with
    // the same result.
    if !kernel.searches_by_address || bind.is_wildcard() {
        return equal(bind, holder, Wildcards::Both);
    }
    // __inet_bhash2_conflict
    if holder.v6only && bind.is_v4() {
        return false;
    }
    // inet_bind2_bucket_match_addr_any, inet_bind2_bucket_addr_match
    match holder.kind() {
        Kind::Any => true,
        Kind::Mapped if bind.is_v4() => holder.is_wildcard() || holder.v4() == bind.v4(),
        _ => holder.key() == bind.key(),
    }
}

/// Returns how two overlapping ends overlap.
pub fn how(bind: End, holder: End) -> Overlap {
    let across = |wide: End, narrow: End| {
        wide.address.is_ipv6() && wide.is_wildcard() && narrow.kind() == Kind::Mapped
    };
    if across(bind, holder) || across(holder, bind) {
        Overlap::DualStack
    } else {
        match (bind.is_wildcard(), holder.is_wildcard()) {
            (true, false) => Overlap::BindWildcard,
            (false, true) => Overlap::HolderWildcard,
            _ => Overlap::Same,
        }
    }
}
