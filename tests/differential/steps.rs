//! A scenario's steps as they are run, with all details.

use std::{
    fmt::{self, Display, Formatter},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use portwatch::evidence::Family;

use crate::{
    machine::{Entry, Id, LOOPBACK, Machine, Role},
    scenario::{Device, Fate, New, Op, Setting, To, Transport},
};

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    Open { id: Id, new: New },
    Bind { id: Id, address: IpAddr, any_port: bool },
    Listen { id: Id, any_port: bool },
    Set { id: Id, setting: Setting },
    Shutdown { id: Id },
    Close { id: Id },
    Child { id: Id, of: Id, to: IpAddr, uid: u32, fate: Fate },
    Client { id: Id, family: Family, server: u16 },
    Narrow { id: Id, to: IpAddr },
    Widen { id: Id },
}

impl Step {
    /// Returns its socket.
    pub fn id(&self) -> Id {
        match *self {
            Self::Open { id, .. }
            | Self::Bind { id, .. }
            | Self::Listen { id, .. }
            | Self::Set { id, .. }
            | Self::Shutdown { id }
            | Self::Close { id }
            | Self::Child { id, .. }
            | Self::Client { id, .. }
            | Self::Narrow { id, .. }
            | Self::Widen { id } => id,
        }
    }

    /// Returns whether it creates that socket.
    pub fn is_of_new(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Child { .. })
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Open { id, new } => write!(f, "#{id} = {new}"),
            Self::Bind { id, address, any_port } => {
                write!(f, "#{id} bind {address} {}", port(*any_port))
            }
            Self::Listen { id, any_port } => write!(f, "#{id} listen {}", port(*any_port)),
            Self::Set { id, setting } => write!(f, "#{id} {setting:?}"),
            Self::Shutdown { id } => write!(f, "#{id} shutdown"),
            Self::Close { id } => write!(f, "#{id} close"),
            Self::Child { id, of, to, uid, fate } => {
                write!(f, "#{id} = connection of #{of} to {to}, {fate:?}, by uid {uid}")
            }
            Self::Client { id, family, server } => {
                write!(f, "#{id} connect to {family:?} server {server}")
            }
            Self::Narrow { id, to } => write!(f, "#{id} connect to {to}"),
            Self::Widen { id } => write!(f, "#{id} connect to AF_UNSPEC"),
        }
    }
}

fn port(any: bool) -> &'static str {
    if any { "port 0" } else { "port P" }
}

impl Display for New {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let family = match self.family {
            Family::Ipv4 => "4",
            Family::Ipv6 => "6",
        };
        write!(f, "{transport}{family} uid {}", self.uid)?;
        for (set, name) in [
            (self.reuseaddr, "reuseaddr"),
            (self.reuseport, "reuseport"),
            (self.v6only, "v6only"),
            (self.device == Device::Loopback, "on lo"),
            (self.device == Device::Other, "on the other device"),
            (self.program, "with a program"),
        ] {
            if set {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

/// Returns the steps of an op, for a machine in this state: none if there is no suitable
/// socket. New sockets are numbered from `next`.
pub fn steps(machine: &Machine, op: &Op, next: Id) -> Vec<Step> {
    let step = match *op {
        Op::Bind { new, to } => {
            let bind = bind(next, new.family, to);
            return vec![Step::Open { id: next, new }, bind];
        }
        Op::Client(new) => return client(machine, next, new),
        Op::Again { pick, to } => machine
            .pick(pick, |entry| entry.role == Role::Own && !entry.bound)
            .map(|(id, entry)| bind(id, entry.family, to)),
        Op::Listen(pick) => machine
            .pick(pick, |entry| {
                entry.role == Role::Own && entry.transport == Transport::Tcp && !entry.listens()
            })
            .map(|(id, entry)| Step::Listen { id, any_port: !entry.bound }),
        Op::Set(pick, setting) => {
            machine.pick(pick, Entry::has_descriptor).map(|(id, _)| Step::Set { id, setting })
        }
        Op::Shutdown(pick) => {
            machine.pick(pick, Entry::listens).map(|(id, _)| Step::Shutdown { id })
        }
        Op::Close(pick) => {
            machine.pick(pick, Entry::has_descriptor).map(|(id, _)| Step::Close { id })
        }
        Op::Child { v4, uid, fate } => child(machine, next, v4, uid, fate),
        Op::Narrow { pick, v4 } => {
            machine.pick(pick, is_udp).map(|(id, entry)| Step::Narrow { id, to: to(entry, v4) })
        }
        Op::Widen(pick) => machine.pick(pick, is_udp).map(|(id, _)| Step::Widen { id }),
    };
    step.into_iter().collect()
}

fn bind(id: Id, family: Family, to: To) -> Step {
    Step::Bind { id, address: to.address(family), any_port: to.any_port }
}

/// A socket keeps its port after a disconnect only if it requested it by its number.
fn is_udp(entry: &Entry) -> bool {
    entry.transport == Transport::Udp && entry.bound && entry.keeps_port
}

fn client(machine: &Machine, id: Id, new: New) -> Vec<Step> {
    let new = New { transport: Transport::Tcp, program: false, ..new };
    match machine.unused_server() {
        // The servers are on the loopback interface.
        Some(server) if new.device != Device::Other => {
            vec![Step::Open { id, new }, Step::Client { id, family: new.family, server }]
        }
        _ => Vec::new(),
    }
}

/// With several listeners, it would be open which of them gets the connection.
fn child(machine: &Machine, id: Id, v4: bool, uid: u32, fate: Fate) -> Option<Step> {
    let (of, listener) = machine.only_listener()?;
    let to = match listener.sock.end.address {
        _ if listener.sock.device > LOOPBACK => return None,
        IpAddr::V4(address) if address.is_loopback() => address.into(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()) => {
            address.into()
        }
        _ if listener.sock.end.is_wildcard() => to(listener, v4),
        _ => return None,
    };
    // Those of a group move to another of its listeners.
    let stays = fate != Fate::Unaccepted || !machine.migrates();
    // A connection that already waits would be accepted first.
    let is_next = !machine.has_unaccepted(of);
    (stays && is_next).then_some(Step::Child { id, of, to, uid, fate })
}

/// Returns a local address that a wildcard socket can have.
fn to(entry: &Entry, v4: bool) -> IpAddr {
    let mapped = entry.sock.end.key().to_ipv4_mapped().is_some();
    match entry.family {
        Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
        Family::Ipv6 if mapped || (v4 && !entry.sock.end.v6only) => {
            Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()
        }
        Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
    }
}
