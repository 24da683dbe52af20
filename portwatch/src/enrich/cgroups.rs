//! What the path of a control group says about a process: unit, container, pod, session.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use crate::{
    engines,
    enrich::host::{Host, read_beginning},
    evidence::{Cgroup, user_of_cgroup},
};

mod handle;

/// The owner of a process, according to the path of its control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The innermost systemd unit.
    pub unit: Option<String>,
    /// The user whose manager runs it; `None` for the system's manager.
    pub unit_owner: Option<u32>,
    /// The container's id.
    pub container: Option<String>,
    /// The pod's uid.
    pub pod: Option<String>,
    /// The login session.
    pub session: Option<String>,
    /// The user in whose slice all of this is.
    pub slice_user: Option<u32>,
}

/// Reads a path like `/system.slice/app.service`. Total.
///
/// The unit is the first part that is not a slice, as in systemd (`cg_path_get_unit`). The unit
/// itself creates the groups below it, and may give them the names of units of the host without
/// being those units. Only below a user's manager the search continues. For the same reason the
/// container is the outermost one, and there is none below a service that is not an engine.
///
/// Below a user's slice that user creates groups with any name. Only what engines run there for
/// users is a container, and its engine is that user's. There are no pods there, and nothing of
/// LXC or of a CRI runtime, which root runs.
pub fn owner(path: &str) -> Owner {
    let mut owner = Owner { slice_user: user_of_cgroup(path), ..Owner::default() };
    let of_user = owner.slice_user.is_some_and(|uid| uid != 0);
    let mut manager = None;
    let mut parent = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let is_unit = [".service", ".scope", ".socket"].iter().any(|kind| part.ends_with(kind));
        let named = engines::container(part, parent, of_user, owner.pod.is_some());
        if let Some((_, name)) = named {
            let may_be = owner.unit.as_deref().is_none_or(may_run_containers);
            owner.container = may_be.then(|| name.to_owned());
            break;
        } else if let Some(pod) = pod(part).filter(|_| owner.unit.is_none() && !of_user) {
            owner.pod = Some(pod);
        } else if is_unit && owner.unit.is_none() {
            if let Some(uid) = between(part, "user@", ".service").filter(|_| manager.is_none()) {
                manager = Some((part.to_owned(), uid.parse().ok()));
            } else {
                owner.session = between(part, "session-", ".scope").map(str::to_owned);
                owner.unit = Some(part.to_owned());
                // Inside is the host's systemd, or a container with that name.
                if part.starts_with("systemd-nspawn@") || part.starts_with("machine-") {
                    break;
                }
            }
        }
        parent = part;
    }
    match manager {
        Some((_, uid)) if owner.unit.is_some() => owner.unit_owner = uid,
        // The manager itself is a unit of the system, not of the user.
        Some((name, _)) => owner.unit = Some(name),
        None => {}
    }
    owner
}

/// Returns whether the groups below a unit may be containers: below a scope that was created
/// for one, or below an engine that creates its groups below itself.
fn may_run_containers(unit: &str) -> bool {
    unit.ends_with(".scope") || engines::is_unit(unit)
}

fn between<'a>(part: &'a str, head: &str, tail: &str) -> Option<&'a str> {
    part.strip_prefix(head)?.strip_suffix(tail).filter(|middle| !middle.is_empty())
}

/// Returns a pod's uid, from `kubepods-burstable-podUID.slice` with `_` for `-`, or from
/// `podUID`. The uid of a static pod is a hash without dashes.
fn pod(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let (head, uid) = name.rsplit_once("pod")?;
    let is_hash = uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_pod = (head.is_empty() || head.starts_with("kubepods")) && (uid.len() == 36 || is_hash);
    is_pod.then(|| uid.replace('_', "-"))
}

/// Returns the path in the text of `/proc/PID/cgroup`: the cgroup2 line, or the line of
/// systemd's own hierarchy, where the cgroup2 line says nothing because the machine uses both
/// versions. The group of a zombie ends in ` (deleted)` if it was removed (`proc_cgroup_show`).
pub fn path_of(text: &str) -> Option<String> {
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("0"), Some(""), Some(path)) => {
                unified = Some(path.strip_suffix(" (deleted)").unwrap_or(path));
            }
            (Some(_), Some("name=systemd"), Some(path)) if path != "/" => {
                return Some(match unified {
                    Some(unified) if unified != "/" => unified.to_owned(),
                    _ => path.to_owned(),
                });
            }
            _ => {}
        }
    }
    unified.map(str::to_owned)
}

/// Returns the path of a cgroup2 id below the hierarchy's root.
pub fn path_of_id(root: &Path, id: u64) -> Option<String> {
    let path = handle::open(root, id)?;
    let below = path.strip_prefix(root).ok()?;
    Some(format!("/{}", below.display()))
}

/// Returns the id of a cgroup2 path: the inode of its directory.
pub fn id_of(host: &Host, path: &str) -> Option<u64> {
    let folder = host.cgroup_root.as_ref()?.join(path.trim_start_matches('/'));
    Some(fs::metadata(folder).ok()?.ino())
}

/// Returns whether the id and the path, which come from different sources, are of the same
/// group, and not of the hierarchy's root. On cgroup v1 the id is always that of the root,
/// while the path is of another hierarchy.
pub fn is_one(host: &Host, group: &Cgroup) -> bool {
    let (Some(root), Some(id)) = (&host.cgroup_root, group.id) else { return false };
    let there = path_of_id(root, id).filter(|path| path != "/");
    there.is_some() && there == group.path
}

/// Returns the processes of a control group, if they are few. In a group with many, or in the
/// hierarchy's root, which contains everything that no manager started, checking each process
/// would not be faster than checking all processes.
pub fn members(host: &Host, id: u64) -> Vec<u32> {
    const FEW: usize = 256;
    let Some(root) = &host.cgroup_root else { return Vec::new() };
    let Some(path) = handle::open(root, id).filter(|path| path != root) else {
        return Vec::new();
    };
    // A line has at most eight bytes, so a text that is cut off has more than a few lines.
    let bytes = read_beginning(&path.join("cgroup.procs"), 64 * 1024).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let pids: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if pids.len() > FEW { Vec::new() } else { pids }
}

/// Reads the path of a process's control group.
///
/// # Errors
/// The process has exited, or access was denied.
pub fn read(proc_folder: &Path) -> io::Result<Option<String>> {
    /// A path has at most PATH_MAX bytes, and cgroup v1 has some twenty hierarchies.
    const MOST: u64 = 128 * 1024;
    let bytes = read_beginning(&proc_folder.join("cgroup"), MOST)?;
    Ok(path_of(&String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b1234";

    fn check(path: &str) -> [Option<String>; 4] {
        let Owner { unit, unit_owner: _, container, pod, session, slice_user: _ } = owner(path);
        [unit, container, pod, session]
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn units_sessions_and_user_managers() {
        assert_eq!(check("/system.slice/app.service"), [some("app.service"), None, None, None]);
        assert_eq!(
            check("/user.slice/user-1004.slice/session-91.scope"),
            [some("session-91.scope"), None, None, some("91")]
        );
        let session = owner("/user.slice/user-1004.slice/session-91.scope");
        assert_eq!((session.slice_user, session.unit_owner), (Some(1004), None));
        let user = owner("/user.slice/user-1000.slice/user@1000.service/app.slice/web@1.service");
        assert_eq!((user.unit, user.unit_owner), (some("web@1.service"), Some(1000)));
        let manager = owner("/user.slice/user-1000.slice/user@1000.service/init.scope");
        assert_eq!((manager.unit, manager.unit_owner), (some("init.scope"), Some(1000)));
        assert_eq!(owner("/user.slice/user-1000.slice/user@1000.service").unit_owner, None);
        assert_eq!(check("/"), [None, None, None, None]);
    }

    #[test]
    fn containers_and_pods() {
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/system.slice/containerd.service/kubepods-x.slice:cri-containerd:{ID}"),
        ] {
            assert_eq!(owner(&path).container, some(ID), "{path}");
        }
        let pod = "0d2a6a3c-6f5b-4a3e-8d6b-2f1d7a1c9e11";
        for path in [
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{ID}.scope",
                pod.replace('-', "_")
            ),
            format!("/kubepods/besteffort/pod{pod}/{ID}"),
        ] {
            assert_eq!(check(&path), [None, some(ID), some(pod), None], "{path}");
        }
    }

    /// A unit of another system, or a part of a service that calls itself so.
    #[test]
    fn what_is_below_a_unit_is_none_of_the_hosts() {
        for (path, unit, container) in [
            (
                "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
                Some("systemd-nspawn@web.service"),
                None,
            ),
            (
                "/machine.slice/machine-web.scope/system.slice/x.service",
                Some("machine-web.scope"),
                None,
            ),
            ("/lxc.payload.web/system.slice/nginx.service", None, Some("web")),
            ("/lxc/web/system.slice/nginx.service", None, Some("web")),
            ("/system.slice/app.service/sshd.service", Some("app.service"), None),
        ] {
            let found = owner(path);
            let [unit, container] = [unit, container].map(|name| name.map(str::to_owned));
            assert_eq!((found.unit, found.container), (unit, container), "{path}");
        }
    }

    /// A service may call a group of its own after another's container, and a
    /// container's own containers and units are none that the host knows.
    #[test]
    fn the_container_is_the_outermost_and_not_a_services_own_group() {
        let inner = ID.replace('9', "a");
        for (path, unit, container) in [
            (format!("/system.slice/app.service/docker-{ID}.scope"), Some("app.service"), None),
            ("/system.slice/app.service/lxc.payload.web".to_owned(), Some("app.service"), None),
            (format!("/system.slice/docker-{ID}.scope/system.slice/x.service"), None, Some(ID)),
            (format!("/docker/{ID}/kubelet/kubepods/podx/{inner}"), None, Some(ID)),
            (format!("/docker/{ID}/docker/{inner}"), None, Some(ID)),
            (
                format!("/system.slice/containerd.service/kubepods-x.slice:cri-containerd:{ID}"),
                Some("containerd.service"),
                Some(ID),
            ),
        ] {
            let found = owner(&path);
            assert_eq!(
                (found.unit.as_deref(), found.container.as_deref()),
                (unit, container),
                "{path}"
            );
        }
    }

    /// Every user makes groups of any name below their own manager.
    #[test]
    fn below_a_user_only_that_users_engines_have_containers() {
        let pod = "0d2a6a3c-6f5b-4a3e-8d6b-2f1d7a1c9e11";
        let users = "/user.slice/user-1000.slice/user@1000.service";
        for (below, unit, container) in [
            (format!("app.slice/cri-containerd-{ID}.scope"), true, None),
            (format!("app.slice/crio-{ID}.scope"), true, None),
            (format!("app.slice/x.scope/{ID}"), true, None),
            (format!("x.slice:cri-containerd:{ID}"), false, None),
            (format!("docker/{ID}"), false, None),
            ("lxc.payload.web".to_owned(), false, None),
            ("lxc/web".to_owned(), false, None),
            ("app.slice/lxc-a.scope/lxc.payload.a".to_owned(), true, None),
            (format!("kubepods.slice/kubepods-pod{pod}.slice/crio-{ID}.scope"), true, None),
            (format!("kubepods/pod{pod}/{ID}"), false, None),
            (format!("user.slice/libpod-{ID}.scope/container"), false, Some(ID)),
            (format!("user.slice/user-libpod_pod_x.slice/libpod-{ID}.scope"), false, Some(ID)),
            (
                format!("user.slice/docker-{ID}.scope/kubelet/kubepods/pod{pod}/{ID}"),
                false,
                Some(ID),
            ),
        ] {
            let found = owner(&format!("{users}/{below}"));
            assert_eq!((found.container.as_deref(), found.pod), (container, None), "{below}");
            assert_eq!(found.unit_owner, unit.then_some(1000), "{below}");
            assert_eq!(found.slice_user, Some(1000), "{below}");
        }
        let session = format!("/user.slice/user-1000.slice/session-3.scope/crio-{ID}");
        assert_eq!(check(&session), [some("session-3.scope"), None, None, some("3")]);
        let roots = format!("/user.slice/user-0.slice/user@0.service/user.slice/crio-{ID}.scope");
        assert_eq!(owner(&roots).container, some(ID));
    }

    #[test]
    fn a_static_pod() {
        let pod = "5c4d2b0a9f8e7d6c5b4a39281706f5e4";
        let path = format!("/kubepods.slice/kubepods-burstable-pod{pod}.slice/crio-{ID}.scope");
        assert_eq!(check(&path), [None, some(ID), some(pod), None]);
        let path = format!("/kubepods/burstable/pod{pod}/{ID}");
        assert_eq!(check(&path), [None, some(ID), some(pod), None]);
    }

    #[test]
    fn a_group_is_one_by_id_and_path_and_never_the_root() {
        let host = Host::current();
        let Some(root) = host.cgroup_root.clone() else { return };
        let group = |id, path: &str| Cgroup { id: Some(id), path: Some(path.to_owned()) };
        let id = fs::metadata(&root).unwrap().ino();
        assert!(!is_one(&host, &group(id, "/")));
        assert!(!is_one(&host, &group(id, "/system.slice/app.service")));
        let mut folders = fs::read_dir(&root).unwrap().flatten().filter(|it| it.path().is_dir());
        let Some(folder) = folders.next() else { return };
        let (id, name) = (folder.metadata().unwrap().ino(), folder.file_name());
        let path = format!("/{}", name.to_string_lossy());
        // Without the right to open groups by their ids none is one.
        if path_of_id(&root, id).is_some() {
            assert!(is_one(&host, &group(id, &path)));
        }
        assert!(!is_one(&host, &group(id, "/system.slice/app.service")));
    }

    #[test]
    fn the_hierarchy_that_says_something_is_read() {
        assert_eq!(path_of("0::/system.slice/a.service\n"), some("/system.slice/a.service"));
        assert_eq!(path_of("1:name=systemd:/x.service\n0::/\n"), some("/x.service"));
        assert_eq!(path_of("12:cpu:/\n1:name=systemd:/\n0::/x\n"), some("/x"));
        assert_eq!(path_of("0::/\n"), some("/"));
        assert_eq!(path_of("0::/a.slice/b.service (deleted)\n"), some("/a.slice/b.service"));
        assert_eq!(path_of(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text: String) {
            let _ = owner(&text);
            let _ = path_of(&text);
        }
    }
}
