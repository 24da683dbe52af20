//! Names network namespaces that have no name.

use crate::{
    enrich::{cgroups, host::Host, processes},
    evidence::{Evidence, Process},
    kernel::nsfs,
};

/// The most ancestors that are followed.
const MOST_PARENTS: usize = 32;
/// The most processes that are checked.
const MOST_LOOKED_AT: usize = 8;

/// Names a nameless namespace after the pod, or otherwise the container, of the failing
/// process, if that process or a holder in the same container runs in it. The socket alone is
/// no proof: a process may have created it elsewhere.
pub fn name_netns(host: &Host, evidence: &mut Evidence) {
    let Evidence { netns, process, sockets, .. } = evidence;
    let Some(workload) = process.workload.as_ref() else { return };
    let Some(inside) = netns.inode.filter(|_| netns.name.is_none() && netns.host == Some(false))
    else {
        return;
    };
    let holders = sockets.iter().flat_map(|socket| &socket.holders);
    if is_seen_there(host, process, holders, inside) {
        netns.name = match &workload.pod {
            Some(pod) => Some(format!("{}/{}", pod.namespace, pod.name)),
            None => workload.name.clone(),
        };
    }
}

fn is_seen_there<'a>(
    host: &Host,
    failing: &'a Process,
    holders: impl Iterator<Item = &'a Process>,
    inside: u32,
) -> bool {
    let with = holders.filter(|one| is_with(failing, one.container.as_ref(), one.pod.as_ref()));
    std::iter::once(failing)
        .chain(with)
        .take(MOST_LOOKED_AT)
        .any(|one| one.netns.is_none() && lives_with_container(host, one, inside))
}

/// Returns whether a container or pod is that of `process`. All containers of a pod share one
/// network namespace.
fn is_with(process: &Process, container: Option<&String>, pod: Option<&String>) -> bool {
    match &process.pod {
        Some(own) => pod == Some(own),
        None => container.is_some() && container == process.container.as_ref(),
    }
}

/// Returns whether a process runs in the namespace `inside` and has not entered it by itself,
/// as `unshare -n` does: its ancestors in the container run there too.
fn lives_with_container(host: &Host, process: &Process, inside: u32) -> bool {
    let lives_in = |pid| nsfs::inode(&host.proc_file(pid, "ns/net")).ok();
    if lives_in(process.pid) != Some(inside) {
        return false;
    }
    let mut parent = process.ppid;
    for _ in 0..MOST_PARENTS {
        let Some(pid) = parent.filter(|&pid| pid > 1) else { break };
        let path = cgroups::read(&host.proc_file(pid, "")).ok().flatten().unwrap_or_default();
        let owner = cgroups::owner(&path);
        if !is_with(process, owner.container.as_ref(), owner.pod.as_ref()) {
            break;
        }
        if lives_in(pid).is_some_and(|lives| lives != inside) {
            return false;
        }
        parent = processes::parent_of(host, pid).map(|parent| parent.ppid);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        os::unix::fs::{MetadataExt as _, symlink},
        path::Path,
    };

    use tempfile::TempDir;

    use super::*;

    const ID: &str = "9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b1234";

    /// A process `pid` in the container, and in the namespace `netns`.
    fn lives(root: &Path, pid: u32, netns: &str) -> u32 {
        let file = root.join(netns);
        fs::write(&file, "").unwrap();
        let folder = root.join("proc").join(pid.to_string());
        fs::create_dir_all(folder.join("ns")).unwrap();
        symlink(&file, folder.join("ns/net")).unwrap();
        fs::write(folder.join("cgroup"), format!("0::/system.slice/docker-{ID}.scope\n")).unwrap();
        u32::try_from(fs::metadata(file).unwrap().ino()).unwrap()
    }

    fn in_container(pid: u32) -> Process {
        Process { pid, ppid: Some(60), container: Some(ID.to_owned()), ..Process::default() }
    }

    /// Returns whether the namespace of the container's first process 60 is called after it,
    /// where its children 70 fails and 80 holds the port.
    fn is_named(change: impl FnOnce(&Path, &mut u32, &mut Process, &mut Process)) -> bool {
        let root = TempDir::new().unwrap();
        let host = Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::Unsupported.into())));
        let mut inside = lives(root.path(), 60, "web");
        let (mut failing, mut holder) = (in_container(70), in_container(80));
        change(root.path(), &mut inside, &mut failing, &mut holder);
        is_seen_there(&host, &failing, std::iter::once(&holder), inside)
    }

    #[test]
    fn it_is_called_after_the_container_that_is_seen_to_live_there() {
        assert!(is_named(|root, _, _, _| _ = lives(root, 70, "web")));
        assert!(is_named(|root, _, _, _| _ = lives(root, 80, "web")), "only the holder is left");
        assert!(!is_named(|root, _, _, holder| {
            lives(root, 80, "web");
            holder.container = Some("a".repeat(64));
        }));
    }

    #[test]
    fn a_process_that_is_elsewhere_lends_it_no_name() {
        assert!(!is_named(|_, _, _, _| ()), "nobody is left");
        let made_elsewhere = |root: &Path, _: &mut u32, failing: &mut Process, _: &mut Process| {
            failing.netns = Some(lives(root, 70, "other"));
        };
        assert!(!is_named(made_elsewhere));
        let unshared = |root: &Path, inside: &mut u32, _: &mut Process, _: &mut Process| {
            *inside = lives(root, 70, "own");
        };
        assert!(!is_named(unshared));
    }
}
