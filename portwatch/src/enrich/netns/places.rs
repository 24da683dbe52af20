//! Finds network namespaces by their names, and by the processes in them.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    engines,
    enrich::host::{Host, NetnsRef, numbered},
    kernel::nsfs,
};

/// Returns the more informative of two errors: the one that shows that the file exists.
pub fn denial(one: io::Error, other: io::Error) -> io::Error {
    if one.kind() == ErrorKind::PermissionDenied { one } else { other }
}

/// Returns every namespace that can be found, with one path to each, the agent's own first, and
/// at most `most`. Also returns whether these are all namespaces.
pub fn all(host: &Host, most: usize) -> (Vec<NetnsRef>, bool) {
    let own = inode(&host.proc_root.join("self/ns/net"));
    let mut found: HashMap<u32, NetnsRef> = HashMap::new();
    let mut complete = true;
    for path in names(host).chain(processes(host)) {
        let inode = match nsfs::inode(&path) {
            Ok(inode) => inode,
            // A process that has exited has no namespace.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // It counts as the agent's own namespace, as in `find`.
            Err(_) if path.ends_with("1/ns/net") => continue,
            Err(_) => {
                complete = false;
                continue;
            }
        };
        if Some(inode) == own || found.contains_key(&inode) {
            continue;
        }
        if found.len() >= most {
            return (with_own(found), false);
        }
        match open(&path, inode) {
            Ok(file) => {
                found.insert(inode, NetnsRef::Other(file));
            }
            Err(_) => complete = false,
        }
    }
    (with_own(found), complete)
}

fn with_own(found: HashMap<u32, NetnsRef>) -> Vec<NetnsRef> {
    std::iter::once(NetnsRef::Own).chain(found.into_values()).collect()
}

/// Opens a namespace's file, if it has the inode `wanted`.
pub fn open(path: &Path, wanted: u32) -> io::Result<File> {
    if nsfs::inode(path)? == wanted {
        let file = File::open(path)?;
        if file.metadata()?.ino() == u64::from(wanted) {
            return Ok(file);
        }
    }
    Err(ErrorKind::NotFound.into())
}

/// Returns the inode of an nsfs file, following the link, or `None` if it was removed or access
/// was denied.
pub fn inode(path: &Path) -> Option<u32> {
    nsfs::inode(path).ok()
}

/// Returns the namespace's file among the names of `ip netns`, or an engine's file for it. The
/// name of an engine's file means nothing to people, so it is left out.
pub fn named(host: &Host, wanted: u32) -> Option<(Option<String>, PathBuf)> {
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
    engines_folders().find_map(|folder| Some((None, entry_in(host.run_root.join(folder))?)))
}

/// Returns the files of namespaces that have a name, or a file of an engine.
pub fn names(host: &Host) -> impl Iterator<Item = PathBuf> {
    std::iter::once("netns")
        .chain(engines_folders())
        .filter_map(|folder| fs::read_dir(host.run_root.join(folder)).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn engines_folders() -> impl Iterator<Item = &'static str> {
    engines::all().filter_map(|engine| engine.spec().netns)
}

/// Finds it through any process that runs there.
///
/// # Errors
/// `PermissionDenied` if there is none and one process could not be read, `TimedOut` if not all
/// processes were checked.
pub fn any_process(host: &Host, wanted: u32, deadline: Instant) -> io::Result<File> {
    let mut none = io::Error::from(ErrorKind::NotFound);
    for path in processes(host) {
        if Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        match open(&path, wanted) {
            Ok(file) => return Ok(file),
            Err(why) => none = denial(why, none),
        }
    }
    Err(none)
}

/// Returns the namespace file of every process.
pub fn processes(host: &Host) -> impl Iterator<Item = PathBuf> {
    numbered(&host.proc_root).map(|(_, folder)| folder.join("ns/net"))
}
