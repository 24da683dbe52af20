//! The kernel side's record of who holds which port, read only when a bind was
//! refused.

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, loaded_maps},
};
use portwatch_common::{Connected, OWNERS, Owner, PORT_NUMBERS, PORTS, Port, PortUse};

use super::KernelError;
use crate::evidence::Origin;

/// A shared record seen by aya, whose `Pod` is not bytemuck's.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub T);

// SAFETY: `T` is plain data without padding, and the wrapper is transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for Shared<T> {}

/// Who holds what.
pub trait Records: Send {
    /// Who bound the socket with this cookie, or listens on it.
    fn owner(&self, cookie: u64) -> Option<Owner>;

    /// What is known of a port; `None` if nobody bound it that is on record.
    fn port(&self, port: Port) -> Option<PortUse>;

    /// Whether there may have been a TCP connection whose own port has this
    /// number, in any namespace.
    fn may_have_connected(&self, port: u16) -> bool;

    /// Which end began the TCP connections of a port; `None` if there were some
    /// of both kinds, or the record cannot tell.
    fn origin(&self, port: u16) -> Option<Origin>;

    /// Puts a socket on record that is older than the agent. What the kernel
    /// side has written itself is left alone.
    fn seed(&mut self, cookie: u64, owner: Owner);

    /// Puts a connection on record that is older than the agent.
    fn seed_connected(&mut self, port: u16);

    /// From now on connections that are not on record are known not to be.
    fn seeded(&mut self);
}

/// The maps of the loaded object.
pub struct KernelRecords {
    owners: HashMap<MapData, u64, Shared<Owner>>,
    ports: HashMap<MapData, Shared<Port>, Shared<PortUse>>,
    connected: Array<MapData, Shared<Connected>>,
    seeded: bool,
}

impl KernelRecords {
    /// Takes the maps out of the loaded object.
    ///
    /// # Errors
    /// The object lacks them.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let step = |error: Box<dyn std::error::Error + Send + Sync>| {
            KernelError::aya("open the record of owners")(error)
        };
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| step(format!("no map {name}").into()));
        let maps = [take("OWNERS")?, take("PORTS")?, take("CONNECTED")?];
        Self::of(maps).map_err(|error| step(error.into()))
    }

    /// The record that a running agent keeps; of several agents the one that has
    /// been there longest. `None` if none runs, or its maps may not be opened
    /// (CAP_SYS_ADMIN).
    pub fn of_running_agent() -> Option<Self> {
        let mut found = [("OWNERS", OWNERS), ("PORTS", PORTS), ("CONNECTED", PORT_NUMBERS)]
            .map(|(name, entries)| (name, entries, None));
        // In the order in which they were made. A search of files has maps of these
        // names too, as small as they can be.
        for map in loaded_maps().filter_map(Result::ok) {
            for (name, entries, first) in &mut found {
                if map.name_as_str() == Some(*name) && map.max_entries() == *entries {
                    first.get_or_insert(map.id());
                }
            }
        }
        let [owners, ports, connected] =
            found.map(|(_, _, id)| id.and_then(|id| MapData::from_id(id).ok()));
        let (owners, ports, connected) = (owners?, ports?, connected?);
        let maps = [Map::LruHashMap(owners), Map::LruHashMap(ports), Map::Array(connected)];
        // It has long been seeded when it says that it is ready.
        Some(Self { seeded: true, ..Self::of(maps).ok()? })
    }

    fn of([owners, ports, connected]: [Map; 3]) -> Result<Self, MapError> {
        Ok(Self {
            owners: owners.try_into()?,
            ports: ports.try_into()?,
            connected: connected.try_into()?,
            seeded: false,
        })
    }

    fn connected(&self, port: u16) -> Option<Connected> {
        self.connected.get(&u32::from(port), 0).ok().map(|Shared(connected)| connected)
    }
}

/// `BPF_NOEXIST`: do not overwrite.
const NO_EXIST: u64 = 1;

impl Records for KernelRecords {
    fn owner(&self, cookie: u64) -> Option<Owner> {
        self.owners.get(&cookie, 0).ok().map(|Shared(owner)| owner)
    }

    fn port(&self, port: Port) -> Option<PortUse> {
        self.ports.get(&Shared(port), 0).ok().map(|Shared(known)| known)
    }

    fn may_have_connected(&self, port: u16) -> bool {
        !self.seeded || self.connected(port) != Some(Connected::default())
    }

    fn origin(&self, port: u16) -> Option<Origin> {
        match self.connected(port)? {
            _ if !self.seeded => None,
            Connected { outgoing: 1, accepted: 0, older: 0 } => Some(Origin::Outgoing),
            Connected { outgoing: 0, accepted: 1, older: 0 } => Some(Origin::Accepted),
            _ => None,
        }
    }

    fn seed(&mut self, cookie: u64, owner: Owner) {
        if self.owners.insert(cookie, Shared(owner), NO_EXIST).is_err() {
            tracing::trace!(cookie, "on record already, or no room");
            return;
        }
        let before = self.port(owner.port);
        let known = PortUse {
            last_cookie: before.map_or(cookie, |before| before.last_cookie),
            previous_cookie: before.map_or(0, |before| before.previous_cookie),
            bound: before.map_or(0, |before| before.bound).saturating_add(1),
            reserved: 0,
        };
        if let Err(error) = self.ports.insert(Shared(owner.port), Shared(known), 0) {
            tracing::debug!(%error, "the port is not on record");
        }
    }

    fn seed_connected(&mut self, port: u16) {
        let before = self.connected(port).unwrap_or_default();
        let known = Shared(Connected { older: 1, ..before });
        if let Err(error) = self.connected.set(u32::from(port), known, 0) {
            tracing::debug!(%error, port, "the connection is not on record");
        }
    }

    fn seeded(&mut self) {
        self.seeded = true;
    }
}

/// Nothing is on record: for a look without the agent's hooks.
pub struct NoRecords;

impl Records for NoRecords {
    fn owner(&self, _cookie: u64) -> Option<Owner> {
        None
    }

    fn port(&self, _port: Port) -> Option<PortUse> {
        None
    }

    fn may_have_connected(&self, _port: u16) -> bool {
        true
    }

    fn origin(&self, _port: u16) -> Option<Origin> {
        None
    }

    fn seed(&mut self, _cookie: u64, _owner: Owner) {}

    fn seed_connected(&mut self, _port: u16) {}

    fn seeded(&mut self) {}
}
