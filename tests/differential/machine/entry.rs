//! One socket of a scenario.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portwatch::{
    conflict::{
        address::End,
        rule::{Phase, Sock},
    },
    evidence::Family,
};

use crate::{machine::Id, scenario::Transport};

/// The loopback interface's index.
pub const LOOPBACK: u32 = 1;

/// A socket.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub transport: Transport,
    pub family: Family,
    pub role: Role,
    pub sock: Sock,
    /// Whether it has the port.
    pub bound: bool,
    /// SOCK_BINDADDR_LOCK, SOCK_BINDPORT_LOCK.
    pub keeps_address: bool,
    pub keeps_port: bool,
    /// Whether it has listened and was shut down.
    pub has_stopped: bool,
}

/// The role of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A scenario created it, and it requests ports.
    Own,
    /// It got its port from connect(2).
    Client,
    /// A connection that this listener has not returned yet.
    Unaccepted { of: Id },
    /// A connection with a descriptor.
    Accepted,
    /// A connection that only the kernel still has.
    Left,
}

impl Entry {
    pub fn listens(&self) -> bool {
        self.sock.phase == Phase::Listens
    }

    pub fn has_descriptor(&self) -> bool {
        matches!(self.role, Role::Own | Role::Client | Role::Accepted)
    }

    /// Its end without an address.
    pub fn any(&self) -> End {
        End::new(self.family, unspecified(self.family), self.sock.end.v6only)
    }

    /// New ones are inserted first, except those of an AF_INET6 group, which are inserted last
    /// (`sk_add_node_rcu`, `__sk_nulls_add_node_tail_rcu`).
    pub fn comes_last(&self) -> bool {
        self.family == Family::Ipv6 && self.sock.reuseport
    }
}

/// A bind to a specific IPv6 address makes the socket IPv6 only.
pub fn bound_end(entry: &Entry, address: IpAddr) -> End {
    let end = End::new(entry.family, address, entry.sock.end.v6only);
    let specific =
        end.address.is_ipv6() && !end.is_wildcard() && end.key().to_ipv4_mapped().is_none();
    End { v6only: end.v6only || specific, ..end }
}

pub fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}
