//! The failing socket's network namespace: whose it is, what it is called, and
//! how to look into it when the process that failed is gone.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    decode::RawFailure,
    enrich::host::{Host, NetnsRef},
    evidence::{Gap, Netns},
};

/// Describes the namespace and finds a way in. Without one the sockets there
/// cannot be listed, which the gap says.
pub fn find(host: &Host, raw: &RawFailure, gaps: &mut Vec<Gap>) -> (Netns, Option<NetnsRef>) {
    let own = inode(&host.proc_root.join("self/ns/net"));
    let init = inode(&host.proc_root.join("1/ns/net"));
    if init.is_none() {
        gaps.push(Gap::new(
            "netns.host",
            "pid 1's namespace may not be read; the agent's own is taken for the host's",
        ));
    }
    // A namespace without an inode on record is that of the failing process.
    let wanted = raw.netns_inode.or_else(|| inode(&host.proc_file(raw.task.pid, "ns/net")));
    let mut netns = Netns {
        inode: wanted,
        cookie: raw.netns_cookie,
        name: None,
        host: wanted.and_then(|wanted| Some(wanted == init.or(own)?)),
    };
    let Some(wanted) = wanted else {
        gaps.push(Gap::new("netns", "the process was gone before its namespace could be read"));
        return (netns, None);
    };
    let named = named(host, wanted);
    netns.name = named.as_ref().and_then(|(name, _)| name.clone());
    if own == Some(wanted) {
        return (netns, Some(NetnsRef::Own));
    }
    // Each way is opened before it is believed: the process may be gone between
    // a look at its link and the use of it.
    let way = open(&host.proc_file(raw.task.pid, "ns/net"), wanted)
        .or_else(|| named.and_then(|(_, path)| open(&path, wanted)))
        .or_else(|| any_process(host, wanted));
    if way.is_none() {
        gaps.push(Gap::new(
            "netns",
            "its last process was gone and it has no name, so it could not be entered",
        ));
    }
    (netns, way.map(NetnsRef::Other))
}

/// Opens a namespace's file, if it is the one that is wanted.
fn open(path: &Path, wanted: u32) -> Option<File> {
    let file = File::open(path).ok()?;
    (file.metadata().ok()?.ino() == u64::from(wanted)).then_some(file)
}

/// The inode of an nsfs file, following the link.
fn inode(path: &Path) -> Option<u32> {
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}

/// The namespace's name as `ip netns` keeps it, or Docker's file for it, which
/// is no name that anybody knows.
fn named(host: &Host, wanted: u32) -> Option<(Option<String>, PathBuf)> {
    let entry_in = |folder: PathBuf| {
        fs::read_dir(folder)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| inode(path) == Some(wanted))
    };
    if let Some(path) = entry_in(host.run_root.join("netns")) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        return Some((name, path));
    }
    entry_in(host.run_root.join("docker/netns")).map(|path| (None, path))
}

/// By any process that lives there.
fn any_process(host: &Host, wanted: u32) -> Option<File> {
    fs::read_dir(&host.proc_root)
        .ok()?
        .flatten()
        .filter(|entry| {
            entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
        })
        .map(|entry| entry.path().join("ns/net"))
        .filter(|path| inode(path) == Some(wanted))
        .find_map(|path| open(&path, wanted))
}
