//! The model's side: what the rules make of every step. It knows all that
//! happened to the port, so it can say of every bind and listen how it ends.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use portwatch::{
    conflict::{
        Clause, Kernel,
        address::{End, Wildcards, equal},
        bucket::{self, Bucket},
        rule::{Ask, Group, Phase, Sock},
        udp,
    },
    evidence::Family,
};
use rustix::io::Errno;

use crate::{
    bugs::Bug,
    groups::{Busy, Groups},
    live::SERVERS,
    scenario::{Device, Fate, New, Pick, Setting, Settings, Transport},
    steps::Step,
};

/// A socket's number in its scenario.
pub type Id = usize;

/// How a step ends.
pub type Answer = Result<(), Errno>;

/// How a step is expected to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Success,
    /// Success, although by the rule this socket refuses: the bucket lets pass.
    Passed(Id, Clause),
    /// EADDRINUSE, because of this socket, by this clause.
    Refusal(Id, Clause),
    Error(Errno),
    /// Not a matter of ports.
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

/// All sockets of a scenario, and what the kernel remembers of their port.
#[derive(Clone)]
pub struct Machine {
    kernel: Kernel,
    /// A bug that the kernel is taken to have.
    bug: Option<Bug>,
    settings: Settings,
    other_device: u32,
    sockets: BTreeMap<Id, Entry>,
    clients: u16,
    bucket: Option<Bucket>,
    groups: Groups,
    /// TCP listeners in the order of their hash.
    listening: Vec<Id>,
    /// UDP sockets in the order of the first and of the second hash.
    by_port: Vec<Id>,
    by_address: Vec<Id>,
}

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
    keeps_address: bool,
    pub keeps_port: bool,
}

/// What a socket is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It was made by a scenario, and asks for ports.
    Own,
    /// It was given the port by connect(2).
    Client,
    /// A connection that this listener has not yet handed out.
    Unaccepted { of: Id },
    /// A connection with a descriptor.
    Accepted,
    /// A connection that the kernel alone remembers.
    Left,
}

impl Entry {
    pub fn listens(&self) -> bool {
        self.sock.phase == Phase::Listens
    }

    pub fn has_descriptor(&self) -> bool {
        matches!(self.role, Role::Own | Role::Client | Role::Accepted)
    }

    fn any(&self) -> End {
        End::new(self.family, unspecified(self.family), self.sock.end.v6only)
    }

    /// New ones come first, but for those of an AF_INET6 group, which come last
    /// (`sk_add_node_rcu`, `__sk_nulls_add_node_tail_rcu`).
    fn comes_last(&self) -> bool {
        self.family == Family::Ipv6 && self.sock.reuseport
    }
}

impl Machine {
    pub fn new(kernel: Kernel, settings: Settings, other_device: u32) -> Self {
        Self {
            kernel,
            bug: None,
            settings,
            other_device,
            sockets: BTreeMap::new(),
            clients: 0,
            bucket: None,
            groups: Groups::default(),
            listening: Vec::new(),
            by_port: Vec::new(),
            by_address: Vec::new(),
        }
    }

    /// The same on a kernel with this bug.
    pub fn with(&self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self.clone() }
    }

    pub fn socket(&self, id: Id) -> &Entry {
        &self.sockets[&id]
    }

    /// One of the sockets that are so.
    pub fn pick(&self, pick: Pick, so: impl Fn(&Entry) -> bool) -> Option<(Id, &Entry)> {
        let those: Vec<_> = self.sockets.iter().filter(|(_, entry)| so(entry)).collect();
        let place = usize::from(pick).checked_rem(those.len())?;
        those.get(place).map(|(id, entry)| (**id, *entry))
    }

    /// The TCP listener, if there is one only.
    pub fn only_listener(&self) -> Option<(Id, &Entry)> {
        match self.listening[..] {
            [id] => Some((id, &self.sockets[&id])),
            _ => None,
        }
    }

    pub fn has_unaccepted(&self, of: Id) -> bool {
        self.sockets.values().any(|entry| entry.role == Role::Unaccepted { of })
    }

    /// A server to which nobody has connected, so that the connection is another
    /// than those before it.
    pub fn unused_server(&self) -> Option<u16> {
        (self.clients < SERVERS).then_some(self.clients)
    }

    pub fn migrates(&self) -> bool {
        self.settings.migrates
    }

    /// How the kernel should answer.
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
        self.expects_of_port(id, &Sock { end, ..self.sock(id) }, any_port)
    }

    fn expects_of_listen(&self, id: Id, any_port: bool) -> Expected {
        let sk = Sock { phase: Phase::Listens, ..self.sock(id) };
        match self.expects_of_port(id, &sk, any_port) {
            refused @ Expected::Refusal(..) => refused,
            passed if self.is_busy(id) => {
                debug_assert!(passed != Expected::Either);
                Expected::Error(Errno::BUSY)
            }
            passed => passed,
        }
    }

    /// A group that the socket would have to leave has others in it.
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
            _ => entry.sock.reuseport,
        };
        if may { Expected::Success } else { Expected::Error(Errno::INVAL) }
    }

    fn expects_of_port(&self, id: Id, sk: &Sock, any_port: bool) -> Expected {
        let asks: &[Ask] = match (any_port, self.settings.autobind_reuses) {
            (false, _) => &[Ask::Port],
            (true, true) if self.sockets[&id].transport == Transport::Tcp => {
                &[Ask::Any, Ask::AnyRelaxed]
            }
            (true, _) => &[Ask::Any],
        };
        let answers = asks.iter().map(|&ask| self.expects_of_ask(id, sk, ask));
        answers
            .reduce(|first, second| if first == Expected::Success { first } else { second })
            .unwrap()
    }

    fn expects_of_ask(&self, id: Id, sk: &Sock, ask: Ask) -> Expected {
        if self.sockets[&id].transport == Transport::Udp {
            return match self.udp_get_port(sk, ask) {
                Err((id, clause)) => Expected::Refusal(id, clause),
                Ok(()) => Expected::Success,
            };
        }
        let others = || {
            let seen = |entry: &Entry| !self.is_unseen(sk, entry);
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

    fn udp_get_port(&self, sk: &Sock, ask: Ask) -> Result<(), (Id, Clause)> {
        let (by_port, by_address) = (self.socks(&self.by_port), self.socks(&self.by_address));
        let crowd = by_port.len() > udp::FEW && ask == Ask::Port;
        if crowd && sk.end.is_wildcard() && self.bug == Some(Bug::UdpWildcardAboveTen) {
            let wildcards = by_address.iter().filter(|(_, other)| other.end.is_wildcard());
            return udp::scan(sk, wildcards, ask);
        }
        udp::get_port(sk, &by_port, &by_address, ask)
    }

    /// [`Bug::MappedWildcardUnseen`].
    fn is_unseen(&self, sk: &Sock, other: &Entry) -> bool {
        let mapped_wildcard = IpAddr::from(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
        let mapped = sk.end.address.is_ipv6() && sk.end.key().to_ipv4_mapped().is_some();
        self.bug == Some(Bug::MappedWildcardUnseen)
            && (mapped && !sk.end.is_wildcard())
            && other.sock.end.address == mapped_wildcard
    }

    /// What the kernel has answered becomes what is.
    pub fn learns(&mut self, step: &Step, answer: Answer, address: Option<IpAddr>) {
        match *step {
            Step::Open { id, new } => self.open(id, new),
            Step::Bind { id, address, any_port } => self.bound(id, address, any_port, answer),
            Step::Listen { id, any_port } => self.listened(id, any_port, answer),
            Step::Set { id, setting } => self.set(id, setting, answer),
            Step::Shutdown { id } => self.shut_down(id),
            Step::Close { id } => self.closed(id),
            Step::Child { id, of, to, uid, fate } => self.accepted(id, of, to, uid, fate),
            Step::Client { id, .. } => {
                self.clients += 1;
                if answer.is_ok() {
                    self.connected(id);
                }
            }
            Step::Narrow { id, .. } => self.moved(id, address),
            Step::Widen { id } => {
                self.entry(id).sock.device = 0;
                self.moved(id, address);
            }
        }
    }

    fn open(&mut self, id: Id, new: New) {
        let sock = Sock {
            end: End::new(new.family, unspecified(new.family), new.v6only),
            device: self.index(new.device),
            reuseaddr: new.reuseaddr,
            reuseport: new.reuseport,
            uid: new.uid,
            phase: Phase::Open,
            group: Group::None,
        };
        let entry = Entry {
            transport: new.transport,
            family: new.family,
            role: Role::Own,
            sock,
            bound: false,
            keeps_address: false,
            keeps_port: false,
        };
        self.sockets.insert(id, entry);
        if new.program {
            self.groups.found(id);
        }
    }

    /// `__inet_bind`, `__inet6_bind`.
    fn bound(&mut self, id: Id, address: IpAddr, any_port: bool, answer: Answer) {
        let entry = self.entry(id);
        match answer {
            Ok(()) => {
                entry.sock.end = bound_end(entry, address);
                entry.keeps_address |= address != unspecified(entry.family);
                entry.keeps_port |= !any_port;
                entry.bound = true;
                self.took(id);
            }
            // It never got so far as to have an address.
            Err(Errno::INVAL) => {}
            Err(_) => entry.sock.end = entry.any(),
        }
    }

    /// `inet_csk_listen_start`, `inet_hash`.
    fn listened(&mut self, id: Id, any_port: bool, answer: Answer) {
        if answer == Err(Errno::ADDRINUSE) {
            return;
        }
        let entry = self.entry(id);
        entry.sock.phase = Phase::Listens;
        entry.bound = true;
        self.took(id);
        let entry = self.sockets[&id];
        if entry.sock.reuseport {
            match self.fellow(id) {
                Some(other) => drop(self.groups.join(id, other)),
                None => self.groups.found(id),
            }
        }
        match answer {
            Ok(()) => file(&mut self.listening, id, entry.comes_last()),
            Err(_) => self.entry(id).sock.phase = Phase::Open,
        }
        debug_assert!(!any_port || entry.bound);
    }

    /// The listener whose group one more would join (`inet_reuseport_add_sock`).
    fn fellow(&self, id: Id) -> Option<Id> {
        let entry = &self.sockets[&id];
        self.listening.iter().copied().find(|other| {
            let other = &self.sockets[other];
            other.family == entry.family
                && other.sock.end.v6only == entry.sock.end.v6only
                && other.sock.device == entry.sock.device
                && other.sock.reuseport
                && other.sock.uid == entry.sock.uid
                && equal(entry.sock.end, other.sock.end, Wildcards::Neither)
        })
    }

    fn set(&mut self, id: Id, setting: Setting, answer: Answer) {
        if answer.is_err() {
            return;
        }
        match setting {
            Setting::ReuseAddr(on) => self.entry(id).sock.reuseaddr = on,
            Setting::ReusePort(on) => self.entry(id).sock.reuseport = on,
            Setting::Device(device) => self.entry(id).sock.device = self.index(device),
            Setting::Program if self.sockets[&id].listens() => {}
            Setting::Program => self.groups.found(id),
        }
    }

    /// `tcp_disconnect` of a listener.
    fn shut_down(&mut self, id: Id) {
        self.stop_listening(id);
        let entry = self.sockets[&id];
        if !entry.keeps_port {
            self.released(id);
        }
        self.forget_unaccepted(id);
        if entry.keeps_address {
            return;
        }
        // inet_bhash2_reset_saddr files it anew.
        if entry.keeps_port {
            let left = self.ends(Some(id));
            let bucket = self.bucket.as_mut().unwrap();
            if self.kernel.buckets_recover {
                bucket.unfiled(entry.sock.end, &left);
            }
            bucket.joined(entry.any(), false);
        }
        self.entry(id).sock.end = entry.any();
    }

    fn closed(&mut self, id: Id) {
        let entry = self.sockets[&id];
        if entry.listens() {
            self.stop_listening(id);
            self.released(id);
            self.forget_unaccepted(id);
        } else if entry.bound {
            self.released(id);
        }
        self.groups.leave(id);
        self.sockets.remove(&id);
    }

    fn stop_listening(&mut self, id: Id) {
        self.entry(id).sock.phase = Phase::Open;
        self.listening.retain(|other| *other != id);
        self.groups.stop(id, self.settings.migrates);
    }

    fn forget_unaccepted(&mut self, id: Id) {
        let of_it = |entry: &Entry| entry.role == Role::Unaccepted { of: id };
        let unaccepted: Vec<_> =
            self.sockets.iter().filter(|(_, entry)| of_it(entry)).map(|(id, _)| *id).collect();
        for id in unaccepted {
            self.released(id);
            self.sockets.remove(&id);
        }
    }

    /// A connection of a listener's (`inet_csk_clone_lock`, `tcp_time_wait`).
    fn accepted(&mut self, id: Id, of: Id, to: IpAddr, uid: u32, fate: Fate) {
        let listener = self.sockets[&of];
        let orphan_uid = |uid| if self.kernel.uid_outlives_file { uid } else { 0 };
        let (role, phase, uid) = match fate {
            Fate::Unaccepted => {
                (Role::Unaccepted { of }, Phase::Open, orphan_uid(listener.sock.uid))
            }
            Fate::Accepted | Fate::CloseWait => (Role::Accepted, Phase::Open, uid),
            Fate::TimeWait | Fate::FinWait2 => (Role::Left, Phase::TimeWait, uid),
            Fate::FinWait1 => (Role::Left, Phase::Open, orphan_uid(uid)),
        };
        let end = End::new(listener.family, to, listener.sock.end.v6only);
        let sock = Sock { end, uid, phase, ..listener.sock };
        let entry = Entry { role, sock, bound: true, keeps_port: false, ..listener };
        self.sockets.insert(id, entry);
        self.bucket.as_mut().unwrap().joined(end, false);
    }

    fn connected(&mut self, id: Id) {
        let entry = self.entry(id);
        let address = match entry.family {
            Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
            Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
        };
        let end = End { address, ..entry.sock.end };
        entry.sock.end = end;
        entry.role = Role::Client;
        entry.bound = true;
        match &mut self.bucket {
            Some(bucket) => bucket.joined(end, true),
            None => self.bucket = Some(Bucket::first_of_connect(end)),
        }
    }

    /// A UDP socket's address has changed (`udp_lib_rehash`).
    fn moved(&mut self, id: Id, address: Option<IpAddr>) {
        let entry = self.entry(id);
        let slot = |end: End| (!end.is_wildcard()).then(|| end.key());
        let old = slot(entry.sock.end);
        if let Some(address) = address {
            entry.sock.end.address = address;
        }
        if slot(entry.sock.end) != old {
            self.by_address.retain(|other| *other != id);
            self.by_address.insert(0, id);
        }
    }

    /// It has been given the port.
    fn took(&mut self, id: Id) {
        let entry = self.sockets[&id];
        if entry.transport == Transport::Udp {
            file(&mut self.by_port, id, entry.comes_last());
            file(&mut self.by_address, id, entry.comes_last());
            return;
        }
        let sock = self.sock(id);
        match &mut self.bucket {
            Some(bucket) => bucket.took(&sock),
            None => self.bucket = Some(Bucket::first(self.kernel, &sock)),
        }
    }

    /// It has the port no longer.
    fn released(&mut self, id: Id) {
        let entry = self.entry(id);
        entry.bound = false;
        let end = entry.sock.end;
        if entry.transport == Transport::Udp {
            self.by_port.retain(|other| *other != id);
            self.by_address.retain(|other| *other != id);
            return;
        }
        let left = self.ends(None);
        if left.is_empty() {
            self.bucket = None;
        } else {
            self.bucket.as_mut().unwrap().released(self.kernel, end, &left);
        }
    }

    /// The TCP sockets on the port.
    fn owners(&self) -> impl Iterator<Item = (Id, &Entry)> {
        let owns = |entry: &Entry| entry.bound && entry.transport == Transport::Tcp;
        self.sockets.iter().map(|(id, entry)| (*id, entry)).filter(move |(_, entry)| owns(entry))
    }

    fn ends(&self, but: Option<Id>) -> Vec<(End, bool)> {
        self.owners()
            .filter(|(id, _)| Some(*id) != but)
            .map(|(_, entry)| (entry.sock.end, entry.role == Role::Client))
            .collect()
    }

    fn socks(&self, ids: &[Id]) -> Vec<(Id, Sock)> {
        ids.iter().map(|id| (*id, self.sockets[id].sock)).collect()
    }

    /// The socket as it asks for a port, with its group.
    fn sock(&self, id: Id) -> Sock {
        Sock { group: self.groups.of(id), ..self.sockets[&id].sock }
    }

    fn entry(&mut self, id: Id) -> &mut Entry {
        self.sockets.get_mut(&id).unwrap()
    }

    fn index(&self, device: Device) -> u32 {
        match device {
            Device::None => 0,
            Device::Loopback => LOOPBACK,
            Device::Other => self.other_device,
        }
    }
}

fn file(order: &mut Vec<Id>, id: Id, last: bool) {
    if last { order.push(id) } else { order.insert(0, id) }
}

/// A bind to a specific IPv6 address makes the socket IPv6 only.
fn bound_end(entry: &Entry, address: IpAddr) -> End {
    let end = End::new(entry.family, address, entry.sock.end.v6only);
    let specific =
        end.address.is_ipv6() && !end.is_wildcard() && end.key().to_ipv4_mapped().is_none();
    End { v6only: end.v6only || specific, ..end }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}
