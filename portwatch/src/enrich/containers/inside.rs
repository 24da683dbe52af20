//! What the cgroup path says about the container that a process runs in. Pure,
//! but for a look at which runtime the kubelet has.

use std::path::Path;

use crate::evidence::{Cgroup, Engine, Process};

/// A process's container, before anybody is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inside {
    /// As the path names it; `None` for a bare id, as cgroupfs drivers have it.
    named: Option<Engine>,
    /// The container's id.
    pub id: Option<String>,
    /// The pod's uid.
    pub pod: Option<String>,
    /// Whose engine it is, if not the system's.
    pub user: Option<u32>,
}

impl Inside {
    /// What is known of `process`; `None` if it is in no container.
    pub fn of(process: &Process) -> Option<Self> {
        let (id, pod) = (process.container.clone(), process.pod.clone());
        if id.is_none() && pod.is_none() {
            return None;
        }
        let path = process.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        let path = path.unwrap_or_default();
        let user = process.cgroup.as_ref().and_then(Cgroup::user);
        let named = id.as_deref().and_then(|id| engine(path, id));
        // Where a path names nobody and no pod, there is nobody to be asked.
        (named.is_some() || pod.is_some()).then_some(Self { named, id, pod, user })
    }

    /// The engine. In a pod a bare id is containerd's or Docker's, CRI-O always
    /// puts its name before it; and the kubelet speaks to Docker only through
    /// cri-dockerd.
    pub fn engine(&self, run_root: &Path) -> Engine {
        self.named.unwrap_or_else(|| {
            let docker = run_root.join("cri-dockerd.sock").exists();
            if docker { Engine::Docker } else { Engine::Containerd }
        })
    }
}

/// The engine in whose group the container `id` is.
fn engine(path: &str, id: &str) -> Option<Engine> {
    const PREFIXES: [(&str, Engine); 5] = [
        ("docker-", Engine::Docker),
        ("libpod-", Engine::Podman),
        ("crio-", Engine::Crio),
        ("cri-containerd-", Engine::Containerd),
        ("nerdctl-", Engine::Containerd),
    ];
    let mut parent = "";
    for part in path.split('/') {
        // The outermost, as for the id itself: what is below is the container's own.
        if part.contains(id) {
            let name = part.rsplit(':').next().unwrap_or(part);
            let by_prefix = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
            return match by_prefix {
                Some(&(_, engine)) => Some(engine),
                None if part.contains(":cri-containerd:") => Some(Engine::Containerd),
                None if parent == "docker" => Some(Engine::Docker),
                None if parent == "libpod_parent" => Some(Engine::Podman),
                None => None,
            };
        }
        parent = part;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b1234";

    #[test]
    fn the_path_names_the_engine() {
        for (path, expected) in [
            (format!("/system.slice/docker-{ID}.scope"), Some(Engine::Docker)),
            (format!("/docker/{ID}"), Some(Engine::Docker)),
            (format!("/docker/{ID}/app"), Some(Engine::Docker)),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some(Engine::Podman)),
            (format!("/libpod_parent/{ID}"), Some(Engine::Podman)),
            (format!("/kubepods.slice/kubepods-podx.slice/crio-{ID}.scope"), Some(Engine::Crio)),
            (
                format!("/kubepods.slice/x.slice/cri-containerd-{ID}.scope"),
                Some(Engine::Containerd),
            ),
            (
                format!("/system.slice/kubepods-x.slice:cri-containerd:{ID}"),
                Some(Engine::Containerd),
            ),
            (format!("/user.slice/nerdctl-{ID}.scope"), Some(Engine::Containerd)),
            (format!("/something/{ID}"), None),
            // A name that the container gives a group of its own.
            (format!("/system.slice/docker-{ID}.scope/crio-{ID}.scope"), Some(Engine::Docker)),
        ] {
            assert_eq!(engine(&path, ID), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read(path: String, id: String) {
            let _ = engine(&path, &id);
        }
    }
}
