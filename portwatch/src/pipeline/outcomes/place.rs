//! Where a process belongs: what is started again as one.

use crate::{event::Event, evidence::Process};

/// A unit, a container or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The containers of a pod come and go.
    Pod(String),
    /// A container.
    Container(String),
    /// A service, of the system or of this user.
    Service(String, Option<u32>),
}

impl Place {
    /// The one of a process. A scope is not started again, and a session is many things.
    pub fn of(process: &Process) -> Option<Self> {
        let service = || {
            let unit = process.unit.as_ref().filter(|unit| unit.ends_with(".service"))?;
            Some(Self::Service(unit.clone(), process.unit_owner))
        };
        let pod = process.pod.clone().map(Self::Pod);
        pod.or_else(|| process.container.clone().map(Self::Container)).or_else(service)
    }
}

/// A service whose manager can be asked what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its unit.
    pub unit: String,
    /// The user whose manager runs it; `None` for the system's.
    pub owner: Option<u32>,
    /// How often it had been restarted when the bind failed.
    pub restarts: Option<u32>,
}

impl Service {
    /// The one of an event's process.
    pub fn of(place: &Place, event: &Event) -> Option<Self> {
        let Place::Service(unit, owner) = place else { return None };
        let supervisor = event.process.supervisor.as_ref();
        let restarts = supervisor.and_then(|supervisor| supervisor.restarts);
        Some(Self { unit: unit.clone(), owner: *owner, restarts })
    }
}
