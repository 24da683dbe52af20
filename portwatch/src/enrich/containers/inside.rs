//! What the cgroup path says about the container that a process runs in. Pure,
//! but for a look at which runtime the kubelet has.

use std::path::Path;

use crate::evidence::{Engine, Process};

/// A process's container, before anybody is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inside {
    /// As the path names it; `None` for a bare id, as cgroupfs drivers have it.
    named: Option<Engine>,
    /// The container's id.
    pub id: Option<String>,
    /// The pod's uid.
    pub pod: Option<String>,
    /// Who may run the engine, if not the system.
    pub users: Vec<u32>,
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
        let mut users: Vec<u32> = owner(path).into_iter().chain(process.uid).collect();
        users.retain(|&uid| uid != 0);
        users.dedup();
        let named = id.as_deref().and_then(|id| engine(path, id));
        // Where a path names nobody and no pod, there is nobody to be asked.
        (named.is_some() || pod.is_some()).then_some(Self { named, id, pod, users })
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
    let mut found = None;
    for part in path.split('/') {
        // The last one, as for the id itself: a container may run containers.
        if part.contains(id) {
            let name = part.rsplit(':').next().unwrap_or(part);
            let by_prefix = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
            found = match by_prefix {
                Some(&(_, engine)) => Some(engine),
                None if part.contains(":cri-containerd:") => Some(Engine::Containerd),
                None if parent == "docker" => Some(Engine::Docker),
                None if parent == "libpod_parent" => Some(Engine::Podman),
                None => None,
            };
        }
        parent = part;
    }
    found
}

/// The user in whose slice the path is: `user-UID.slice`.
pub fn owner(path: &str) -> Option<u32> {
    path.split('/')
        .find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok())
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
        ] {
            assert_eq!(engine(&path, ID), expected, "{path}");
        }
    }

    #[test]
    fn the_slice_names_the_user() {
        let path = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-x.scope";
        assert_eq!(owner(path), Some(1000));
        assert_eq!(owner("/machine.slice/libpod-x.scope"), None);
        assert_eq!(owner("/user.slice/user-x.slice"), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read(path: String, id: String) {
            let _ = (engine(&path, &id), owner(&path));
        }
    }
}
