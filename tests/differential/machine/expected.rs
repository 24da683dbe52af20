//! Predicts the result of a step by the rules, from everything that happened to the port.

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
};

use portwatch::{
    conflict::{
        Clause,
        address::End,
        rule::{Phase, Sock},
    },
    evidence::Family,
};
use rustix::io::Errno;

use crate::{
    bugs::Bug,
    groups::Busy,
    machine::{Answer, Entry, Id, MAPPED_WILDCARD, Machine, Role, entry::bound_end},
    model::{
        Ask, Asker, Group,
        bucket::{self, Bucket},
        udp,
    },
    scenario::{Setting, Transport},
    steps::Step,
};

/// The expected result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Success,
    /// Success, although by the rule this socket blocks: the bucket allows it.
    Passed(Id, Clause),
    /// EADDRINUSE, because of this socket, by this rule.
    Refusal(Id, Clause),
    Error(Errno),
    /// Independent of ports.
    Either,
}

impl Expected {
    pub fn agrees(self, answer: Answer) -> bool {
        match self {
            Self::Success | Self::Passed(..) => answer.is_ok(),
            Self::Refusal(..) => answer == Err(Errno::ADDRINUSE),
            Self::Error(errno) => answer == Err(errno),
            Self::Either => answer != Err(Errno::ADDRINUSE),
        }
    }
}

impl Display for Expected {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Success => write!(f, "success"),
            Self::Passed(id, clause) => {
                write!(f, "success by the bucket, although #{id} {}", clause.words())
            }
            Self::Refusal(id, clause) => write!(f, "EADDRINUSE, because #{id} {}", clause.words()),
            Self::Error(errno) => write!(f, "{errno}"),
            Self::Either => write!(f, "anything but EADDRINUSE"),
        }
    }
}

impl Machine {
    /// Returns the kernel's expected answer.
    pub fn expects(&self, step: &Step) -> Expected {
        match *step {
            Step::Bind { id, address, any_port } => self.expects_of_bind(id, address, any_port),
            Step::Listen { id, any_port } => self.expects_of_listen(id, any_port),
            Step::Client { .. } => {
                let free = self.bucket.as_ref().is_none_or(Bucket::is_of_connect_only);
                if free { Expected::Success } else { Expected::Error(Errno::ADDRNOTAVAIL) }
            }
            Step::Set { id, setting: Setting::Program } => self.expects_of_program(id),
            Step::Narrow { .. } => Expected::Either,
            _ => Expected::Success,
        }
    }

    fn expects_of_bind(&self, id: Id, address: IpAddr, any_port: bool) -> Expected {
        let entry = &self.sockets[&id];
        let end = bound_end(entry, address);
        if entry.sock.end.v6only && end.key().to_ipv4_mapped().is_some() {
            return Expected::Error(Errno::INVAL);
        }
        self.expects_of_port(id, Sock { end, ..entry.sock }, any_port)
    }

    fn expects_of_listen(&self, id: Id, any_port: bool) -> Expected {
        let sock = Sock { phase: Phase::Listens, ..self.sockets[&id].sock };
        match self.expects_of_port(id, sock, any_port) {
            refused @ Expected::Refusal(..) => refused,
            _ if self.is_busy(id) => Expected::Error(Errno::BUSY),
            passed => passed,
        }
    }

    /// Returns whether the socket would have to leave a group with other members.
    fn is_busy(&self, id: Id) -> bool {
        let other = self.sockets[&id].sock.reuseport.then(|| self.fellow(id)).flatten();
        other.is_some_and(|other| self.groups.clone().join(id, other) == Err(Busy))
    }

    /// `reuseport_attach_prog`.
    fn expects_of_program(&self, id: Id) -> Expected {
        let entry = &self.sockets[&id];
        let may = match (entry.transport, entry.role) {
            (Transport::Udp, _) if entry.bound => return Expected::Either,
            (Transport::Tcp, Role::Client | Role::Accepted) => false,
            _ if entry.listens() => self.groups.of(id) != Group::None,
            _ if entry.has_stopped && self.bug == Some(Bug::StoppedListenerTakesNoProgram) => false,
            // Older kernels let a socket keep the group that it already has.
            _ if !entry.sock.reuseport && self.groups.of(id) != Group::None => {
                return Expected::Either;
            }
            _ => entry.sock.reuseport,
        };
        if may { Expected::Success } else { Expected::Error(Errno::INVAL) }
    }

    fn expects_of_port(&self, id: Id, sock: Sock, any_port: bool) -> Expected {
        let sk = self.asker(id, sock);
        let asks: &[Ask] = match (any_port, self.settings.autobind_reuses) {
            (false, _) => &[Ask::Port],
            (true, true) if self.sockets[&id].transport == Transport::Tcp => {
                &[Ask::Any, Ask::AnyRelaxed]
            }
            (true, _) => &[Ask::Any],
        };
        let answers = asks.iter().map(|&ask| self.expects_of_ask(id, &sk, ask));
        answers
            .reduce(|first, second| if first == Expected::Success { first } else { second })
            .unwrap()
    }

    fn expects_of_ask(&self, id: Id, sk: &Asker, ask: Ask) -> Expected {
        if self.sockets[&id].transport == Transport::Udp {
            return match self.udp_get_port(sk, ask) {
                Err((id, clause)) => Expected::Refusal(id, clause),
                Ok(()) => Expected::Success,
            };
        }
        let others = || {
            let seen = |entry: &Entry| !self.is_unseen(sk.sock.end, entry);
            let others = self.owners().filter(move |(other, entry)| *other != id && seen(entry));
            others.map(|(id, entry)| (id, &entry.sock))
        };
        let by_rule = bucket::get_port(self.kernel, None, sk, others(), ask);
        let in_fact = bucket::get_port(self.kernel, self.bucket.as_ref(), sk, others(), ask);
        match (by_rule, in_fact) {
            (_, Err((id, clause))) => Expected::Refusal(id, clause),
            (Err((id, clause)), Ok(())) => Expected::Passed(id, clause),
            (Ok(()), Ok(())) => Expected::Success,
        }
    }

    fn udp_get_port(&self, sk: &Asker, ask: Ask) -> Result<(), (Id, Clause)> {
        let (by_port, by_address) = (self.socks(&self.by_port), self.socks(&self.by_address));
        let crowd = by_port.len() > udp::FEW && ask == Ask::Port;
        if crowd && sk.sock.end.is_wildcard() && self.bug == Some(Bug::UdpWildcardAboveTen) {
            let wildcards = by_address.iter().filter(|(_, other)| other.end.is_wildcard());
            return udp::scan(sk, wildcards, ask);
        }
        if crowd && !sk.sock.end.is_wildcard() && self.bug == Some(Bug::UdpSlotsMeet) {
            let either = by_address.iter().filter(|(_, other)| {
                other.end.is_wildcard() || other.end.key() == sk.sock.end.key()
            });
            return udp::scan(sk, either, ask);
        }
        udp::get_port(sk, &by_port, &by_address, ask)
    }

    /// [`Bug::MappedWildcardUnseen`].
    fn is_unseen(&self, end: End, other: &Entry) -> bool {
        let mapped = end.address.is_ipv6() && end.key().to_ipv4_mapped().is_some();
        self.bug == Some(Bug::MappedWildcardUnseen)
            && (mapped && !end.is_wildcard())
            && other.sock.end.key() == MAPPED_WILDCARD
            && self.mapped_wildcard == Some(Family::Ipv6)
    }

    fn socks(&self, ids: &[Id]) -> Vec<(Id, Sock)> {
        ids.iter().map(|id| (*id, self.sockets[id].sock)).collect()
    }
}
