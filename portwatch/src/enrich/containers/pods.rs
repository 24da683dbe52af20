//! Finds pods in the directories in which the kubelet keeps their logs:
//! `log/pods/NAMESPACE_POD_UID/CONTAINER/N.log`, and the links to them,
//! `log/containers/POD_NAMESPACE_CONTAINER-ID.log`. No API server is asked.

use std::{fs, path::Path};

use crate::evidence::Pod;

/// The most directory entries that are read. The kubelet runs 110 pods by default, and some 500
/// on nodes with a raised limit.
const MOST_ENTRIES: usize = 4096;
/// The longest name in Kubernetes (RFC 1123 subdomain).
const MOST_NAME: usize = 253;

/// The names found in the directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The pod.
    pub pod: Option<Pod>,
    /// The container's name in the pod.
    pub container: Option<String>,
    /// Why one of the two is unknown.
    pub why: Option<&'static str>,
}

/// Searches below `var_root` for the pod with this uid, or the one that the container with
/// this id belongs to.
pub fn find(var_root: &Path, uid: Option<&str>, id: Option<&str>) -> Found {
    let links = var_root.join("log/containers");
    if let Some(linked) = id.and_then(|id| names(&links).find_map(|name| link(&name, id))) {
        return linked;
    }
    let Some(uid) = uid else {
        let why = "the kubelet has no log of that container; its name is not requested from \
                   containerd or CRI-O";
        return Found { why: Some(why), ..Found::default() };
    };
    let pods = var_root.join("log/pods");
    let found = names(&pods).find_map(|name| Some((folder(&name, uid)?, name)));
    let Some((pod, name)) = found else {
        return Found { why: Some("the kubelet has no logs of that pod"), ..Found::default() };
    };
    let container = container(&pods.join(name), id);
    let why = container.is_none().then_some("no log says which container of the pod it is");
    Found { pod: Some(pod), container, why }
}

/// Returns the names in a directory; none if it cannot be read.
fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .take(MOST_ENTRIES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// Returns whether Kubernetes allows the name.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    (1..=MOST_NAME).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.bytes().all(allowed)
}

fn pod(namespace: &str, name: &str) -> Option<Pod> {
    (is_name(namespace) && is_name(name))
        .then(|| Pod { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// Reads `NAMESPACE_POD_UID` with this uid.
fn folder(name: &str, uid: &str) -> Option<Pod> {
    let (namespace, name) = name.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
    pod(namespace, name)
}

/// Reads `POD_NAMESPACE_CONTAINER-ID.log` with this id.
fn link(name: &str, id: &str) -> Option<Found> {
    let name = name.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
    let mut parts = name.splitn(3, '_');
    let (name, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let container = is_name(container).then(|| container.to_owned())?;
    Some(Found { pod: Some(pod(namespace, name)?), container: Some(container), why: None })
}

/// Returns the only container, or the one whose newest log is a link to this id's log.
fn container(folder: &Path, id: Option<&str>) -> Option<String> {
    let mut containers = names(folder).filter(|name| is_name(name));
    let first = containers.next()?;
    let Some(second) = containers.next() else { return Some(first) };
    let id = id?;
    [first, second]
        .into_iter()
        .chain(containers)
        .find(|name| newest_log(&folder.join(name)).is_some_and(|target| target.contains(id)))
}

/// Returns the target of the link `N.log` with the highest N.
fn newest_log(folder: &Path) -> Option<String> {
    let number = |name: &String| name.strip_suffix(".log")?.parse::<u32>().ok();
    let newest = names(folder).filter_map(|name| Some((number(&name)?, name))).max()?.1;
    Some(fs::read_link(folder.join(newest)).ok()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const UID: &str = "0d2a6a3c-6f5b-4a3e-8d6b-2f1d7a1c9e11";
    const ID: &str = "9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b1234";

    fn web() -> Option<Pod> {
        Some(Pod { namespace: "shop".to_owned(), name: "web-7d4b9c-x2x7p".to_owned() })
    }

    fn var(containers: &[&str]) -> TempDir {
        let root = TempDir::new().unwrap();
        let pod = root.path().join(format!("log/pods/shop_web-7d4b9c-x2x7p_{UID}"));
        fs::create_dir_all(root.path().join("log/pods/other_pod_1234")).unwrap();
        fs::create_dir_all(root.path().join("log/containers")).unwrap();
        fs::create_dir_all(&pod).unwrap();
        for container in containers {
            fs::create_dir(pod.join(container)).unwrap();
            fs::write(pod.join(container).join("0.log"), "").unwrap();
        }
        root
    }

    #[test]
    fn a_pod_with_one_container() {
        let root = var(&["nginx"]);
        let found = find(root.path(), Some(UID), Some(ID));
        assert_eq!((found.pod, found.container.as_deref()), (web(), Some("nginx")));
        assert_eq!(found.why, None);
    }

    #[test]
    fn one_of_several_by_the_link_of_its_id() {
        let root = var(&["nginx", "sidecar"]);
        let found = find(root.path(), Some(UID), Some(ID));
        assert_eq!((found.pod, found.container), (web(), None));
        assert!(found.why.unwrap().contains("which container"));
        let link = format!("log/containers/web-7d4b9c-x2x7p_shop_sidecar-{ID}.log");
        symlink("/nowhere", root.path().join(link)).unwrap();
        for uid in [Some(UID), None] {
            let found = find(root.path(), uid, Some(ID));
            assert_eq!((found.pod, found.container.as_deref()), (web(), Some("sidecar")));
        }
    }

    #[test]
    fn one_of_several_by_its_newest_log() {
        let root = var(&["nginx", "sidecar"]);
        let folder = root.path().join(format!("log/pods/shop_web-7d4b9c-x2x7p_{UID}/sidecar"));
        symlink("/var/lib/docker/containers/other", folder.join("9.log")).unwrap();
        symlink(format!("/var/lib/docker/containers/{ID}/x"), folder.join("10.log")).unwrap();
        let found = find(root.path(), Some(UID), Some(ID));
        assert_eq!(found.container.as_deref(), Some("sidecar"));
    }

    #[test]
    fn no_folders_at_all() {
        let root = TempDir::new().unwrap();
        assert!(find(root.path(), Some(UID), Some(ID)).why.unwrap().contains("no logs"));
        assert!(find(root.path(), None, Some(ID)).why.is_some());
    }

    proptest! {
        #[test]
        fn any_name_is_read(name: String, known: String) {
            let _ = (folder(&name, &known), link(&name, &known));
        }

        #[test]
        fn names_with_the_right_end(head in "[a-z_.-]{0,40}") {
            if let Some(pod) = folder(&format!("{head}_{UID}"), UID) {
                prop_assert!(is_name(&pod.namespace) && is_name(&pod.name));
            }
            let _ = link(&format!("{head}-{ID}.log"), ID);
        }
    }
}
