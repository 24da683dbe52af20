use std::{fs, os::unix::fs::symlink, path::Path};

use bytemuck::Zeroable as _;
use portwatch_common::Owner;
use tempfile::TempDir;

use super::*;
use crate::{
    enrich::tests::fake::{OnRecord, OpenFiles, process},
    evidence::State,
    kernel::{
        files::{Loaded, SearchError},
        records::NoRecords,
    },
};

fn no_files() -> Holders {
    Holders::new(Box::new(Loaded::Err(SearchError::NotLoaded)))
}

fn fake(root: &TempDir) -> Host {
    // As if no other process ran on the machine.
    fs::create_dir_all(root.path().join("proc/1")).unwrap();
    Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::Unsupported.into())))
}

fn socket(inode: u64) -> Socket {
    let local = "127.0.0.1:80".parse().unwrap();
    Socket { inode: Some(inode), ..Socket::bare(State::Listen, local, Some(inode + 1000)) }
}

/// So many descriptors that are no sockets, listed before and after those that are.
fn fill(root: &Path, pid: u32, many: u32) {
    let folder = root.join(format!("proc/{pid}/fd"));
    for fd in 100..100 + many {
        symlink("/dev/null", folder.join(fd.to_string())).unwrap();
    }
}

fn soon(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

fn on_record(inode: u64, pid: u32) -> OnRecord {
    let owner = Owner { pid, started_ns: 1_000_000_000, ..Owner::zeroed() };
    OnRecord { owners: [(inode + 1000, owner)].into(), ..OnRecord::default() }
}

fn why(gaps: &[Gap]) -> String {
    gaps.iter().map(|gap| format!("{}: {}\n", gap.what, gap.why)).collect()
}

/// The deadline is checked within one descriptor table.
#[test]
fn a_table_without_end_is_left_at_the_deadline() {
    let root = TempDir::new().unwrap();
    let host = fake(&root);
    process(root.path(), 7, 1, 100, "/", &[]);
    fill(root.path(), 7, 1_000);
    let mut wanted = Wanted::from([(798, Descriptors::default())]);
    let mut walk = Walk::until(Instant::now());
    walk.table(7, 7, &host.proc_file(7, "fd"), &mut wanted);
    assert!(walk.complete(&host).is_err());
}

#[test]
fn a_table_is_left_when_everything_is_found() {
    let root = TempDir::new().unwrap();
    let host = fake(&root);
    process(root.path(), 7, 1, 100, "/", &[(3, 798), (4, 798), (5, 799)]);
    let mut wanted = Wanted::from([(798, Descriptors::default()), (799, Descriptors::default())]);
    let mut walk = Walk::until(soon(60_000));
    walk.table(7, 7, &host.proc_file(7, "fd"), &mut wanted);
    assert_eq!([798, 799].map(|inode| wanted[&inode].count()), [1, 1]);
}

/// `Nobody` is returned only if everything was searched.
#[test]
fn what_was_not_looked_at_is_incomplete() {
    let root = TempDir::new().unwrap();
    let host = fake(&root);
    process(root.path(), 7, 1, 100, "/", &[(3, 798)]);
    for (deadline, expected) in
        [(Instant::now(), Searched::Incomplete), (soon(60_000), Searched::Nobody)]
    {
        let (mut sockets, mut gaps) = ([socket(799)], Vec::new());
        let searches = no_files().name(&host, &NoRecords, &mut sockets, deadline, &mut gaps);
        assert_eq!(searches.of(&sockets[0]), Some(expected), "{}", why(&gaps));
        assert_eq!(gaps.is_empty(), expected == Searched::Nobody, "{}", why(&gaps));
    }
}

/// The recorded process has more descriptors than there is time for.
#[test]
fn who_is_not_found_near_in_time_is_found_by_the_kernel() {
    let root = TempDir::new().unwrap();
    let host = fake(&root);
    process(root.path(), 7, 1, 100, "/", &[]);
    fill(root.path(), 7, 300);
    let files = OpenFiles(vec![(7, 798)]);
    let (mut sockets, mut gaps) = ([socket(798)], Vec::new());
    let records = on_record(798, 7);
    let mut holders = Holders::new(Box::new(files));
    let searches = holders.name(&host, &records, &mut sockets, Instant::now(), &mut gaps);
    assert_eq!(searches.of(&sockets[0]), Some(Searched::Found));
    assert_eq!(sockets[0].holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [7]);
}

/// A server and all that have inherited its sockets.
#[test]
fn of_two_thousand_holders_some_are_described_and_all_counted() {
    let root = TempDir::new().unwrap();
    let host = fake(&root);
    const SOCKETS: u64 = 4;
    for pid in 100..140 {
        process(root.path(), pid, 1, 100, "/", &[]);
    }
    let open = (100..2_100).flat_map(|pid| (0..SOCKETS).map(move |inode| (pid, 798 + inode)));
    let mut holders = Holders::new(Box::new(OpenFiles(open.collect())));
    // The second time from the cache.
    for _ in 0..2 {
        let mut sockets: Vec<_> = (0..SOCKETS).map(|inode| socket(798 + inode)).collect();
        let mut gaps = Vec::new();
        holders.name(&host, &NoRecords, &mut sockets, soon(60_000), &mut gaps);
        assert!(sockets.iter().all(|socket| socket.holders.len() == 32));
        assert_eq!(why(&gaps), "sockets.holders.more: 7872 more holders are not listed\n");
    }
    assert!(holders.remembered.values().all(|(_, descriptors)| descriptors.kept().count() == 32));
}

/// All of one, or one of each of many.
#[test]
fn what_is_remembered_is_looked_at_again_in_part() {
    for (sockets, stale, believed) in
        [(1, 31, false), (2, 31, false), (64, 1, true), (64, 0, false)]
    {
        let root = TempDir::new().unwrap();
        let host = fake(&root);
        let mut holders = no_files();
        for pid in 0..32 {
            let folder = root.path().join(format!("proc/{}/task/{0}/fd", 100 + pid));
            fs::create_dir_all(&folder).unwrap();
            let inode = if pid == stale { 5 } else { 798 };
            symlink(format!("socket:[{inode}]"), folder.join("3")).unwrap();
        }
        let mut descriptors = Descriptors::default();
        (100..132).for_each(|pid| _ = descriptors.add(Descriptor { pid, tid: pid, fd: 3 }));
        holders.remembered.insert(798, (Instant::now(), descriptors));
        let each = recalled_each(sockets);
        let recalled = holders.recall(&host, 798, each, soon(60_000));
        assert_eq!(recalled.is_some(), believed, "{sockets} {stale}");
        assert_eq!(holders.recall(&host, 798, each, Instant::now()), None, "no time is left");
    }
}

/// Of the blocking socket first.
#[test]
fn who_is_not_described_in_time_is_a_gap() {
    let root = TempDir::new().unwrap();
    let host = fake(&root);
    let mut known = Wanted::new();
    for pid in [7, 8, 9] {
        process(root.path(), pid, 1, 100, "/", &[]);
        known.entry(798 + u64::from(pid)).or_default().add(Descriptor { pid, tid: pid, fd: 3 });
    }
    let mut sockets = [7, 8, 9].map(|pid| socket(798 + pid));
    sockets[1].refused = Some(true);
    let gap = describe(&host, &mut sockets, &known, Instant::now());
    assert_eq!(sockets.each_ref().map(|socket| socket.holders.len()), [0, 1, 0]);
    let expected = "2 more holders are not listed, 2 of them for lack of time";
    assert_eq!(gap.map(|gap| gap.why).as_deref(), Some(expected));
}
