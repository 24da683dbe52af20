//! The model's side: everything that happened to the port, so that it can predict the result
//! of every bind and listen ([`Machine::expects`]).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use portwatch::{
    conflict::{
        address::End,
        rule::{Phase, Sock},
    },
    evidence::Family,
};
use rustix::io::Errno;

use crate::{
    bugs::Bug,
    groups::Groups,
    live::SERVERS,
    model::{Asker, Kernel, bucket::Bucket, udp},
    scenario::{Device, Fate, New, Pick, Setting, Settings, Transport},
    steps::Step,
};

mod entry;
mod expected;

pub use entry::{Entry, LOOPBACK, Role};
pub use expected::Expected;

use entry::{bound_end, unspecified};

/// A socket's index in its scenario.
pub type Id = usize;

/// `::ffff:0.0.0.0`.
pub const MAPPED_WILDCARD: Ipv6Addr = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();

/// The result of a step.
pub type Answer = Result<(), Errno>;

/// All sockets of a scenario, and the kernel's state of their port.
#[derive(Clone)]
pub struct Machine {
    kernel: Kernel,
    /// A bug that the kernel is assumed to have.
    bug: Option<Bug>,
    settings: Settings,
    other_device: u32,
    sockets: BTreeMap<Id, Entry>,
    clients: u16,
    bucket: Option<Bucket>,
    /// The family of the first of those at `0.0.0.0` and `::ffff:0.0.0.0`, for
    /// [`Bug::MappedWildcardUnseen`].
    mapped_wildcard: Option<Family>,
    groups: Groups,
    /// TCP listeners in the order of their hash.
    listening: Vec<Id>,
    /// UDP sockets in the order of the first and of the second hash.
    by_port: Vec<Id>,
    by_address: Vec<Id>,
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
            mapped_wildcard: None,
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

    /// Returns one of the sockets with a property.
    pub fn pick(&self, pick: Pick, so: impl Fn(&Entry) -> bool) -> Option<(Id, &Entry)> {
        let those: Vec<_> = self.sockets.iter().filter(|(_, entry)| so(entry)).collect();
        let place = usize::from(pick).checked_rem(those.len())?;
        those.get(place).map(|(id, entry)| (**id, *entry))
    }

    /// Returns the TCP listener, if there is exactly one.
    pub fn only_listener(&self) -> Option<(Id, &Entry)> {
        match self.listening[..] {
            [id] => Some((id, &self.sockets[&id])),
            _ => None,
        }
    }

    pub fn has_unaccepted(&self, of: Id) -> bool {
        self.sockets.values().any(|entry| entry.role == Role::Unaccepted { of })
    }

    /// Returns a server without a connection, so that the new connection differs from earlier
    /// ones.
    pub fn unused_server(&self) -> Option<u16> {
        (self.clients < SERVERS).then_some(self.clients)
    }

    /// Returns whether UDP no longer checks all sockets on the port.
    pub fn is_crowded(&self) -> bool {
        self.by_port.len() > udp::FEW
    }

    pub fn migrates(&self) -> bool {
        self.settings.migrates
    }

    /// Updates the state with the kernel's answer.
    pub fn learns(&mut self, step: &Step, answer: Answer, address: Option<IpAddr>) {
        match *step {
            Step::Open { id, new } => self.open(id, new),
            Step::Bind { id, address, any_port } => self.bound(id, address, any_port, answer),
            Step::Listen { id, .. } => self.listened(id, answer),
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
        };
        let entry = Entry {
            transport: new.transport,
            family: new.family,
            role: Role::Own,
            sock,
            bound: false,
            keeps_address: false,
            keeps_port: false,
            has_stopped: false,
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
                self.took(id);
            }
            // It failed before it had an address.
            Err(Errno::INVAL) => {}
            Err(_) => entry.sock.end = entry.any(),
        }
    }

    /// `inet_csk_listen_start`, `inet_hash`.
    fn listened(&mut self, id: Id, answer: Answer) {
        if answer == Err(Errno::ADDRINUSE) {
            return;
        }
        self.entry(id).sock.phase = Phase::Listens;
        self.took(id);
        let entry = self.sockets[&id];
        if entry.sock.reuseport {
            match self.fellow(id) {
                // A busy group is part of the answer.
                Some(other) => self.groups.join(id, other).unwrap_or(()),
                None => self.groups.found(id),
            }
        }
        match answer {
            Ok(()) => file(&mut self.listening, id, entry.comes_last()),
            Err(_) => self.entry(id).sock.phase = Phase::Open,
        }
    }

    /// Returns the listener whose group one more would join (`inet_reuseport_add_sock`).
    fn fellow(&self, id: Id) -> Option<Id> {
        let entry = &self.sockets[&id];
        self.listening.iter().copied().find(|other| {
            let other = &self.sockets[other];
            other.sock.end == entry.sock.end
                && other.sock.device == entry.sock.device
                && other.sock.reuseport
                && other.sock.uid == entry.sock.uid
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
        if !entry.keeps_address {
            self.entry(id).sock.end = entry.any();
        }
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
        let entry = self.entry(id);
        entry.sock.phase = Phase::Open;
        entry.has_stopped = true;
        self.listening.retain(|other| *other != id);
        self.groups.stop(id, self.settings.migrates && self.kernel.groups_keep_closed);
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

    /// Updates a UDP socket whose address has changed (`udp_lib_rehash`).
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

    /// The socket has got the port, or may listen on the one that it has.
    fn took(&mut self, id: Id) {
        let entry = self.sockets[&id];
        if entry.transport == Transport::Udp {
            self.entry(id).bound = true;
            file(&mut self.by_port, id, entry.comes_last());
            file(&mut self.by_address, id, entry.comes_last());
            return;
        }
        if !entry.bound && entry.sock.end.key() == MAPPED_WILDCARD {
            let others = self.owners().any(|(_, other)| other.sock.end.key() == MAPPED_WILDCARD);
            self.mapped_wildcard = self.mapped_wildcard.filter(|_| others).or(Some(entry.family));
        }
        self.entry(id).bound = true;
        let asker = self.asker(id, self.sockets[&id].sock);
        match &mut self.bucket {
            Some(bucket) => bucket.took(&asker),
            None => self.bucket = Some(Bucket::first(self.kernel, &asker)),
        }
    }

    /// The socket has released the port.
    fn released(&mut self, id: Id) {
        let entry = self.entry(id);
        entry.bound = false;
        let end = entry.sock.end;
        if entry.transport == Transport::Udp {
            self.by_port.retain(|other| *other != id);
            self.by_address.retain(|other| *other != id);
            return;
        }
        let left = self.ends();
        if left.is_empty() {
            self.bucket = None;
        } else {
            self.bucket.as_mut().unwrap().released(self.kernel, end, &left);
        }
    }

    /// Returns the TCP sockets on the port.
    fn owners(&self) -> impl Iterator<Item = (Id, &Entry)> {
        let owns = |entry: &Entry| entry.bound && entry.transport == Transport::Tcp;
        self.sockets.iter().map(|(id, entry)| (*id, entry)).filter(move |(_, entry)| owns(entry))
    }

    fn ends(&self) -> Vec<(End, bool)> {
        self.owners().map(|(_, entry)| (entry.sock.end, entry.role == Role::Client)).collect()
    }

    /// Returns the socket as it requests a port.
    fn asker(&self, id: Id, sock: Sock) -> Asker {
        Asker { sock, group: self.groups.of(id) }
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
