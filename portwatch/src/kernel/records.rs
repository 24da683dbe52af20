//! The kernel side's owner record, read only when a bind has failed.

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, loaded_maps},
};
use portwatch_common::{
    ARGUMENTS, Arguments, CGROUP_PATH, CLOSED, CONNECTIONS, Closed, Connected, Connections,
    GONE_CGROUPS, GONE_OF_USERS, OWNERS, Owner, PORT_NUMBERS, PORTS, Port, PortUse,
    RECORD_CMDLINE_LEN, SocketOptions,
};

use super::{KernelError, take_map};
use crate::{evidence::Origin, redact::Unredacted};

/// A shared record in the form that aya needs. aya's `Pod` is not that of bytemuck.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub T);

// SAFETY: `T` is plain data without padding, and the wrapper is transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for Shared<T> {}

/// Access to the owner record.
pub trait Records: Send {
    /// Returns the process that bound the socket with this cookie, or listens on it.
    fn owner(&self, _cookie: u64) -> Option<Owner> {
        None
    }

    /// Returns the beginning of the arguments that the process had; empty if they are not
    /// recorded.
    fn arguments(&self, _owner: &Owner) -> Unredacted {
        Unredacted::default()
    }

    /// Returns what is known about a port, or `None` if no recorded process has bound it.
    fn port(&self, _port: Port) -> Option<PortUse> {
        None
    }

    /// Returns the path of a removed control group, from the hierarchy's root, by its id.
    fn gone_cgroup(&self, _id: u64) -> Option<String> {
        None
    }

    /// Returns whether there may have been a TCP connection with this local port number, in any
    /// namespace.
    fn may_have_connected(&self, _port: u16) -> bool {
        true
    }

    /// Returns the options of the TCP socket with this cookie and local port, which is or was
    /// connected.
    fn connection(&self, _cookie: u64, _port: u16) -> Option<SocketOptions> {
        None
    }

    /// Returns the options of all closed TCP connections on a port that the kernel still keeps,
    /// at this second of `CLOCK_BOOTTIME`, or `None` if they differ or not all were seen.
    fn closed(&self, _netns_inode: u32, _port: u16, _now: u32) -> Option<SocketOptions> {
        None
    }

    /// Returns which end opened the TCP connections on a port, or `None` if there were
    /// connections of both kinds, or that is not recorded.
    fn origin(&self, _port: u16) -> Option<Origin> {
        None
    }

    /// Records a socket that is older than the agent, and the arguments of its process. Entries
    /// that the kernel side has written itself stay as they are.
    fn seed(&mut self, _owner: Owner, _arguments: &Arguments) {}

    /// Records a connection that is older than the agent.
    fn seed_connected(&mut self, _port: u16) {}

    /// From now on a connection without a record is known not to exist.
    fn seeded(&mut self) {}
}

/// The maps of the loaded object.
pub struct KernelRecords {
    owners: Array<MapData, Shared<Owner>>,
    arguments: Array<MapData, Shared<Arguments>>,
    ports: Array<MapData, Shared<PortUse>>,
    gone_cgroups: [HashMap<MapData, u64, [u8; CGROUP_PATH]>; 2],
    connected: Array<MapData, Shared<Connected>>,
    /// An older agent may be running, which does not have these two.
    connections: Option<Array<MapData, Shared<Connections>>>,
    closed: Option<Array<MapData, Shared<Closed>>>,
    seeded: bool,
}

impl KernelRecords {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// The object lacks them.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            owners: take_map(ebpf, "OWNERS")?,
            arguments: take_map(ebpf, "ARGUMENTS")?,
            ports: take_map(ebpf, "PORTS")?,
            gone_cgroups: [take_map(ebpf, "GONE_CGROUPS")?, take_map(ebpf, "GONE_OF_USERS")?],
            connected: take_map(ebpf, "CONNECTED")?,
            connections: Some(take_map(ebpf, "CONNECTIONS")?),
            closed: Some(take_map(ebpf, "CLOSED")?),
            seeded: false,
        })
    }

    /// Opens the owner record of a running agent. With several agents it is the oldest one's.
    /// Returns `None` if no agent runs, or its maps cannot be opened (CAP_SYS_ADMIN).
    pub fn of_running_agent() -> Option<Self> {
        let mut found = [
            ("OWNERS", OWNERS),
            ("ARGUMENTS", ARGUMENTS),
            ("PORTS", PORTS),
            ("GONE_CGROUPS", GONE_CGROUPS),
            ("GONE_OF_USERS", GONE_OF_USERS),
            ("CONNECTED", PORT_NUMBERS),
            ("CONNECTIONS", CONNECTIONS),
            ("CLOSED", CLOSED),
        ]
        .map(|(name, entries)| (name, entries, None));
        // The maps are listed in the order of creation. A search of files has maps with the
        // same names, as small as possible.
        for map in loaded_maps().filter_map(Result::ok) {
            for (name, entries, first) in &mut found {
                if map.name_as_str() == Some(*name) && map.max_entries() == *entries {
                    first.get_or_insert(map.id());
                }
            }
        }
        let [owners, arguments, ports, gone_cgroups, gone_of_users, connected, connections, closed] =
            found.map(|(_, _, id)| id.and_then(|id| MapData::from_id(id).ok()));
        let gone = |map| Map::LruHashMap(map).try_into().ok();
        Some(Self {
            owners: Map::Array(owners?).try_into().ok()?,
            arguments: Map::Array(arguments?).try_into().ok()?,
            ports: Map::Array(ports?).try_into().ok()?,
            gone_cgroups: [gone(gone_cgroups?)?, gone(gone_of_users?)?],
            connected: Map::Array(connected?).try_into().ok()?,
            connections: connections.and_then(|map| Map::Array(map).try_into().ok()),
            closed: closed.and_then(|map| Map::Array(map).try_into().ok()),
            // The record has been complete since the agent reported that it is ready.
            seeded: true,
        })
    }

    fn connected(&self, port: u16) -> Option<Connected> {
        slot(&self.connected, u32::from(port))
    }
}

/// Returns the content of a slot, unless it is being written: then a second read differs.
fn whole<T: bytemuck::Pod + PartialEq>(table: &Array<MapData, Shared<T>>, at: u32) -> Option<T> {
    slot(table, at).filter(|there| slot(table, at).as_ref() == Some(there))
}

/// Returns the content of a slot, even if it is being written.
fn slot<T: bytemuck::Pod>(table: &Array<MapData, Shared<T>>, at: u32) -> Option<T> {
    table.get(&at, 0).ok().map(|Shared(there)| there)
}

impl Records for KernelRecords {
    fn owner(&self, cookie: u64) -> Option<Owner> {
        whole(&self.owners, Owner::slot(cookie)).filter(|owner| owner.is_of(cookie))
    }

    fn arguments(&self, owner: &Owner) -> Unredacted {
        let kept = whole(&self.arguments, Arguments::slot(owner.pid));
        let kept = kept.filter(|kept| kept.are_of(owner));
        let bytes = kept.as_ref().and_then(|kept| kept.cmdline.get(..usize::from(kept.len)));
        let bytes = bytes.unwrap_or_default();
        let cut = bytes.len() == RECORD_CMDLINE_LEN && !bytes.ends_with(&[0]);
        Unredacted::new(bytes, cut)
    }

    fn port(&self, port: Port) -> Option<PortUse> {
        slot(&self.ports, port.slot()).filter(|known| known.port == port)
    }

    fn gone_cgroup(&self, id: u64) -> Option<String> {
        let path = self.gone_cgroups.iter().find_map(|gone| gone.get(&id, 0).ok())?;
        let text = path.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn may_have_connected(&self, port: u16) -> bool {
        !self.seeded || self.connected(port) != Some(Connected::default())
    }

    fn connection(&self, cookie: u64, port: u16) -> Option<SocketOptions> {
        slot(self.connections.as_ref()?, Connections::slot(cookie, port))?.of(cookie)
    }

    fn closed(&self, netns_inode: u32, port: u16, now: u32) -> Option<SocketOptions> {
        let key = Closed::key(netns_inode, port);
        whole(self.closed.as_ref()?, Closed::slot(key))?.options(key, now)
    }

    fn origin(&self, port: u16) -> Option<Origin> {
        match self.connected(port)? {
            _ if !self.seeded => None,
            Connected { outgoing: 1, accepted: 0, older: 0 } => Some(Origin::Outgoing),
            Connected { outgoing: 0, accepted: 1, older: 0 } => Some(Origin::Accepted),
            _ => None,
        }
    }

    fn seed(&mut self, owner: Owner, arguments: &Arguments) {
        let owner = Owner { seal: owner.cookie, ..owner };
        let (cookie, port) = (owner.cookie, owner.port);
        let at = Owner::slot(cookie);
        if slot(&self.owners, at).is_none_or(|there| there.cookie != 0) {
            return;
        }
        if let Err(error) = self.owners.set(at, Shared(owner), 0) {
            tracing::debug!(%error, cookie, "the socket has no owner record");
            return;
        }
        let known = match slot(&self.ports, port.slot()) {
            Some(there) if there.port == port => {
                Some(PortUse { bound: there.bound.saturating_add(1), ..there })
            }
            Some(there) if there.last_cookie == 0 => Some(PortUse::first(port, cookie, &there)),
            _ => None,
        };
        let known = known.map(|known| self.ports.set(port.slot(), Shared(known), 0));
        let at = Arguments::slot(arguments.pid);
        let free = slot(&self.arguments, at).is_some_and(|there| there.pid == 0);
        let kept = free.then(|| self.arguments.set(at, Shared(*arguments), 0));
        if let Some(Err(error)) = known.into_iter().chain(kept).find(Result::is_err) {
            tracing::debug!(%error, "the port or the arguments could not be recorded");
        }
    }

    fn seed_connected(&mut self, port: u16) {
        let before = self.connected(port).unwrap_or_default();
        let known = Shared(Connected { older: 1, ..before });
        if let Err(error) = self.connected.set(u32::from(port), known, 0) {
            tracing::debug!(%error, port, "the connection could not be recorded");
        }
    }

    fn seeded(&mut self) {
        self.seeded = true;
    }
}

/// Opens the owner record of a running agent, or an empty record if there is none.
#[must_use]
pub fn of_running_agent() -> Box<dyn Records> {
    match KernelRecords::of_running_agent() {
        Some(records) => Box::new(records),
        None => Box::new(NoRecords),
    }
}

/// An empty owner record, for collecting evidence without the agent's hooks.
pub struct NoRecords;

impl Records for NoRecords {}
