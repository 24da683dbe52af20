//! The kernel side's record of who holds which port, read only when a bind was
//! refused.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use portwatch_common::{Owner, Port};

use super::KernelError;

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

    /// The cookie of the last socket that was on a port.
    fn last_on(&self, port: Port) -> Option<u64>;

    /// Puts a socket on record that is older than the agent. What the kernel
    /// side has written itself is left alone.
    fn seed(&mut self, cookie: u64, owner: Owner, port: Port);
}

/// The maps of the loaded object.
pub struct KernelRecords {
    owners: HashMap<MapData, u64, Shared<Owner>>,
    ports: HashMap<MapData, Shared<Port>, u64>,
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
        let (owners, ports) = (take("OWNERS")?, take("PORTS")?);
        let unusable = |error: aya::maps::MapError| step(error.into());
        Ok(Self {
            owners: owners.try_into().map_err(unusable)?,
            ports: ports.try_into().map_err(unusable)?,
        })
    }
}

/// `BPF_NOEXIST`: do not overwrite.
const NO_EXIST: u64 = 1;

impl Records for KernelRecords {
    fn owner(&self, cookie: u64) -> Option<Owner> {
        self.owners.get(&cookie, 0).ok().map(|Shared(owner)| owner)
    }

    fn last_on(&self, port: Port) -> Option<u64> {
        self.ports.get(&Shared(port), 0).ok()
    }

    fn seed(&mut self, cookie: u64, owner: Owner, port: Port) {
        let known = self.owners.insert(cookie, Shared(owner), NO_EXIST).is_err()
            || self.ports.insert(Shared(port), cookie, NO_EXIST).is_err();
        if known {
            tracing::trace!(cookie, "on record already");
        }
    }
}

/// Nothing is on record: for a look without the agent's hooks.
pub struct NoRecords;

impl Records for NoRecords {
    fn owner(&self, _cookie: u64) -> Option<Owner> {
        None
    }

    fn last_on(&self, _port: Port) -> Option<u64> {
        None
    }

    fn seed(&mut self, _cookie: u64, _owner: Owner, _port: Port) {}
}
