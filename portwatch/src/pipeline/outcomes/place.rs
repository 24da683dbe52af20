//! Determines which processes may replace a process that exited: those of its unit or
//! container, or the next child of the process that runs it.

use crate::{
    decode::{RawFailure, RawFollowed},
    diagnose::responsibility,
    event::Event,
    evidence::{Process, SupervisorKind},
};

/// A unit, a container or a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A pod. Its containers are replaced by new ones.
    Pod(String),
    /// A container.
    Container(String),
    /// A service, of the system or of this user.
    Service(String, Option<u32>),
}

impl Place {
    /// Returns the place of a process. A service that only launched the process (cron, sshd)
    /// does not restart it, and neither does a scope or a session.
    pub fn of(process: &Process) -> Option<Self> {
        let service = || {
            let unit = responsibility::service(process)?;
            let unit = unit.ends_with(".service").then(|| unit.to_owned())?;
            Some(Self::Service(unit, process.unit_owner))
        };
        let pod = process.pod.clone().map(Self::Pod);
        pod.or_else(|| process.container.clone().map(Self::Container)).or_else(service)
    }
}

/// The processes that may replace a failing process.
#[derive(Debug)]
pub struct Successors {
    /// Where they run.
    pub place: Option<Place>,
    /// Their control group, if no other processes are in it.
    group: Option<u64>,
    /// The supervisor or shell that runs the process also runs others: only a process with this
    /// name counts.
    name: Option<String>,
    /// The process's parent, if that is the supervisor or shell.
    parent: Option<u32>,
}

impl Successors {
    /// Returns the possible successors of an event's failing process.
    pub fn of(raw: &RawFailure, event: &Event, group: Option<u64>) -> Self {
        let process = &event.process;
        let place = Place::of(process);
        let keeper = process.supervisor.as_ref().filter(|supervisor| {
            supervisor.kind != SupervisorKind::Systemd
                && !matches!(place, Some(Place::Pod(_) | Place::Container(_)))
        });
        let child = keeper.filter(|keeper| keeper.pid.is_some() && keeper.pid == process.ppid);
        Self {
            group: group.filter(|_| place.is_some()),
            name: keeper.map(|_| raw.task.comm.clone()),
            parent: child.and_then(|keeper| keeper.pid),
            place,
        }
    }

    /// Returns whether there can be any successors.
    pub fn may_come(&self) -> bool {
        self.place.is_some() || self.name.is_some()
    }

    /// Returns whether a process is a successor, by its control group or its place.
    pub fn are_in(&self, group: Option<u64>, place: Option<&Place>, comm: &str) -> bool {
        self.name.as_ref().is_none_or(|name| name == comm)
            && (group.is_some() && self.group == group
                || place.is_some() && self.place.as_ref() == place)
    }

    /// Returns whether a process is a successor, by its parent.
    pub fn have_parent_of(&self, raw: &RawFollowed) -> bool {
        self.parent.is_some() && self.parent == raw.parent && self.name.as_ref() == Some(&raw.comm)
    }
}

/// A service whose manager is asked after its process has exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its unit.
    pub unit: String,
    /// The user whose manager runs it; `None` for the system's.
    pub owner: Option<u32>,
    /// The failing process, if it was the unit's main process.
    pub main_pid: Option<u32>,
    /// How often the unit had been restarted when that process failed.
    pub restarts: Option<u32>,
}

impl Service {
    /// Returns the service of an event's process.
    pub fn of(place: &Place, event: &Event) -> Option<Self> {
        let Place::Service(unit, owner) = place else { return None };
        let supervisor = event.process.supervisor.as_ref();
        // An answer that was cached from another run of the unit has no main process.
        let main = supervisor.filter(|it| it.main_pid == Some(event.process.pid));
        Some(Self {
            unit: unit.clone(),
            owner: *owner,
            main_pid: main.and_then(|it| it.main_pid),
            restarts: main.and_then(|it| it.restarts),
        })
    }
}
