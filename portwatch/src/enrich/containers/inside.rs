//! What the cgroup path says about the container that a process runs in. Pure, except for a
//! check of the kubelet's runtime.

use std::path::Path;

use crate::{
    engines::{self, Engine, Names},
    evidence::{Cgroup, Process},
};

/// A process's container, before any engine is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inside {
    /// The engine that the path names; `None` for a bare id, as cgroupfs drivers write it.
    named: Option<Engine>,
    /// The container's id.
    pub id: Option<String>,
    /// The pod's uid.
    pub pod: Option<String>,
    /// The user who runs the engine; `None` for the system's.
    pub user: Option<u32>,
}

impl Inside {
    /// Returns what is known about the container of `process`, or `None` if it is in none.
    pub fn of(process: &Process) -> Option<Self> {
        let (id, pod) = (process.container.clone(), process.pod.clone());
        if id.is_none() && pod.is_none() {
            return None;
        }
        let path = process.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        let path = path.unwrap_or_default();
        let user = process.cgroup.as_ref().and_then(Cgroup::user);
        // For a path without an engine and without a pod, there is no engine to ask.
        let named = id.as_deref().and_then(|id| engines::of_container(path, id));
        let named = named.filter(|engine| engine.spec().names != Names::Nobody);
        (named.is_some() || pod.is_some()).then_some(Self { named, id, pod, user })
    }

    /// Returns the engine. For a bare id in a pod it is the kubelet's engine.
    pub fn engine(&self, run_root: &Path) -> Engine {
        self.named.unwrap_or_else(|| engines::of_pod(|socket| run_root.join(socket).exists()))
    }
}
