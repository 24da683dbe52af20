//! Enrichment of a fake host: a directory for /proc, recorded replies for netlink.

use std::{
    collections::HashMap,
    fs, io,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
};

use bytemuck::Zeroable as _;
use portwatch_common::{Owner, Port, PortUse};
use tempfile::TempDir;

use super::*;
use crate::{
    decode::RawTask,
    enrich::host::{DiagSocket, NetnsRef},
    evidence::{Ephemeral, Family, Protocol, Socket, Stage, State, Unheld},
    kernel::{
        files::{Loaded, SearchError},
        records::NoRecords,
    },
    redact::Unredacted,
};

pub mod fake;

use fake::{
    LISTEN, OnRecord, Row, TIME_WAIT, UnderWay, asked, done, enrich, host, host_replying, message,
    netlink, own_netns, process, refused,
};

/// It could not bind, has exited, and systemd has removed its group.
#[test]
fn a_service_that_is_gone_still_has_its_unit() {
    let root = TempDir::new().unwrap();
    let host = host(&root, &[]);
    let raw = refused(own_netns(&root));
    let records = OnRecord {
        gone_cgroups: [(raw.task.cgroup_id, "/system.slice/app.service".to_owned())].into(),
        ..OnRecord::default()
    };
    let files = Box::new(Loaded::Err(SearchError::NotLoaded));
    let evidence = Enricher::new(host, Box::new(records), files).enrich(&raw, DEADLINE);
    assert_eq!(evidence.process.unit.as_deref(), Some("app.service"));
}

#[test]
fn a_holder_is_named_with_its_unit_and_user() {
    let root = TempDir::new().unwrap();
    let host = host(&root, &[Row(LISTEN, "0.0.0.0:8080", 798, 0)]);
    process(root.path(), 38104, 1, 100, "/system.slice/old.service", &[(3, 11), (89, 798)]);
    process(root.path(), 52110, 700, 900, "/system.slice/app.service", &[]);
    process(root.path(), 700, 1, 50, "/", &[]);
    fs::write(root.path().join("proc/700/cmdline"), "sh\0-c\0while :; do java; done\0").unwrap();
    let evidence = enrich(host, &refused(own_netns(&root)));
    let holder = &evidence.sockets[0].holders[0];
    assert_eq!((holder.pid, holder.fd), (38104, Some(89)));
    assert_eq!(holder.unit.as_deref(), Some("old.service"));
    assert_eq!(holder.exe.as_deref(), Some("/usr/bin/java"));
    let failing = &evidence.process;
    assert_eq!(failing.cmdline, ["java", "-jar", "/opt/app-52110.jar"]);
    assert_eq!(failing.unit.as_deref(), Some("app.service"));
    assert_eq!(failing.user.as_deref(), Some("deploy"));
    assert_eq!(failing.ancestors, [700]);
    let supervisor = failing.supervisor.as_ref().unwrap();
    assert_eq!(
        (supervisor.name.as_deref(), supervisor.pid),
        (Some("while :; do java; done"), Some(700))
    );
    assert_eq!(holder.supervisor, None);
    assert_eq!(evidence.failure.device.unwrap().name.as_deref(), Some("lo"));
    assert_eq!(evidence.gaps, []);
}

#[test]
fn a_later_process_of_the_same_number_is_not_taken_for_the_failing_one() {
    let root = TempDir::new().unwrap();
    let host = host(&root, &[]);
    process(root.path(), 52110, 1, 901, "/system.slice/stranger.service", &[]);
    let evidence = enrich(host, &refused(own_netns(&root)));
    assert_eq!(evidence.process.exe, None);
    assert_eq!(evidence.process.unit, None);
    assert_eq!(evidence.process.cmdline, ["java"], "what the kernel saw stays");
    assert_eq!(evidence.gaps[0].what, Fact::Exe);
}

/// 32 holders of two sockets, each with as many arguments as execve(2) takes.
#[test]
fn long_command_lines_are_cut_and_kept_once() {
    let root = TempDir::new().unwrap();
    let rows = [Row(LISTEN, "0.0.0.0:8080", 798, 0), Row(LISTEN, "10.0.0.1:8080", 799, 0)];
    let host = host(&root, &rows);
    let long = "argument\0".repeat(2 * 1024 * 1024 / 9);
    for pid in 100..132 {
        process(root.path(), pid, 1, 100, "/system.slice/old.service", &[(3, 798), (4, 799)]);
        fs::write(root.path().join(format!("proc/{pid}/cmdline")), &long).unwrap();
    }
    let files = Box::new(Loaded::Err(SearchError::NotLoaded));
    let mut enricher = Enricher::new(host, Box::new(NoRecords), files);
    let evidence = enricher.enrich(&refused(own_netns(&root)), Duration::from_secs(20));
    assert!(serde_json::to_vec(&evidence).unwrap().len() < seal::MOST_OF_EVENT);
    let holders = |socket: usize| &evidence.sockets[socket].holders;
    assert_eq!((holders(0).len(), holders(1).len()), (32, 32));
    let described =
        |socket: usize| holders(socket).iter().find(|holder| !holder.cmdline.is_empty());
    let (first, second) = (described(0).unwrap(), described(1).unwrap());
    assert_eq!(first.cmdline.iter().next_back(), Some("…"));
    assert!(
        std::ptr::eq(first.cmdline.first().unwrap(), second.cmdline.first().unwrap()),
        "one copy"
    );
    assert!(evidence.gaps.iter().any(|gap| gap.why.contains("described in brief")));
}

/// In the texts of a process, and in another user's name.
#[test]
fn bytes_that_are_no_text_cost_nobody_else_its_name() {
    let root = TempDir::new().unwrap();
    let host = host(&root, &[Row(LISTEN, "0.0.0.0:8080", 798, 0)]);
    let passwd = b"root:x:0:0::/:\nm\xfcller:x:1000:1000:\xff:/:\ndeploy:x:1004:1004::/:\n";
    fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    process(root.path(), 38104, 1, 100, "/system.slice/old.service", &[(89, 798)]);
    let folder = root.path().join("proc/38104");
    let stat = fs::read_to_string(folder.join("stat")).unwrap();
    let (before, after) = stat.split_once("java").unwrap();
    let stat = [before.as_bytes(), b"j\xffva", after.as_bytes()].concat();
    fs::write(folder.join("stat"), stat).unwrap();
    fs::write(folder.join("status"), b"Name:\tj\xffva\nUid:\t1004\t0\t0\t0\n").unwrap();
    let evidence = enrich(host, &refused(own_netns(&root)));
    let holder = &evidence.sockets[0].holders[0];
    assert_eq!(holder.comm.as_deref(), Some("j\u{fffd}va"));
    assert_eq!((holder.uid, holder.user.as_deref()), (Some(1004), Some("deploy")));
    assert_eq!(evidence.process.user.as_deref(), Some("deploy"));
}

#[test]
fn time_wait_rows_are_counted_and_only_the_longest_are_kept() {
    let root = TempDir::new().unwrap();
    let rows = [
        Row(TIME_WAIT, "10.0.0.1:8080", 0, 1_000),
        Row(TIME_WAIT, "10.0.0.1:8080", 0, 41_000),
        Row(TIME_WAIT, "10.0.0.1:8080", 0, 3_000),
        Row(TIME_WAIT, "10.0.0.2:8080", 0, 2_000),
        Row(TIME_WAIT, "10.0.0.1:8081", 0, 59_000),
    ];
    let evidence = enrich(host(&root, &rows), &refused(own_netns(&root)));
    assert_eq!((evidence.time_wait.count, evidence.time_wait.max_remaining_ms), (4, Some(41_000)));
    let kept: Vec<_> = evidence.sockets.iter().map(|row| row.expires_ms).collect();
    assert_eq!(kept, [Some(41_000), Some(2_000)]);
}

#[test]
fn the_rows_that_are_kept_are_bounded() {
    let mut found = sockets::Found::default();
    for (state, many) in
        [(State::Listen, 1_000), (State::Established, 1_000), (State::TimeWait, 99)]
    {
        for host in 0..many {
            let local = SocketAddr::from(([10, 0, (host / 256) as u8, (host % 256) as u8], 80));
            let row = Socket::bare(state, local, None);
            found.add(row);
        }
    }
    assert_eq!(found.sockets.len(), 256 + 64 + 16);
    assert_eq!(found.time_wait.count, 99);
}

/// Each may be another worker's; those without a process all belong to the kernel.
#[test]
fn connections_of_several_processes_are_kept_apart() {
    let mut found = sockets::Found::default();
    let local: SocketAddr = "10.0.0.1:80".parse().unwrap();
    for inode in [Some(1), Some(2), Some(1), None, None].into_iter().chain((3..99).map(Some)) {
        let row = Socket { inode, ..Socket::bare(State::Established, local, None) };
        found.add(row);
    }
    let kept: Vec<_> = found.sockets.iter().map(|row| row.inode).collect();
    let mut expected: Vec<_> = (1..=8).map(Some).collect();
    expected.insert(2, None);
    assert_eq!(kept, expected);
    assert_eq!(found.connections.established, 101);
}

#[test]
fn a_namespace_that_is_gone_is_a_gap() {
    let root = TempDir::new().unwrap();
    let evidence = enrich(host(&root, &[]), &refused(4_000_000_000));
    assert_eq!(evidence.netns.host, Some(false));
    assert!(evidence.gaps.iter().any(|gap| gap.what == Fact::Netns), "{:?}", evidence.gaps);
}

/// The inode is reused by another namespace: its sockets say nothing.
#[test]
fn a_namespace_with_another_cookie_is_a_gap() {
    for known in [true, false] {
        let root = TempDir::new().unwrap();
        let host = host(&root, &[Row(LISTEN, "0.0.0.0:8080", 798, 0)]);
        fs::create_dir_all(root.path().join("proc/52110/ns")).unwrap();
        fs::write(root.path().join("proc/52110/ns/net"), "").unwrap();
        let netns_inode = known.then(|| own_netns(&root));
        let bind = RawBind { netns_inode, netns_cookie: Some(2), ..asked(1) };
        let raw = RawFailure { bind, ..refused(1) };
        let evidence = enrich(host, &raw);
        assert_eq!(evidence.sockets, []);
        assert_eq!((evidence.netns.cookie, evidence.netns.host), (Some(2), None));
        assert!(evidence.gaps.iter().any(|gap| gap.what == Fact::Netns), "{:?}", evidence.gaps);
        assert_eq!(evidence.ephemeral, None);
    }
}

#[test]
fn a_namespace_is_found_by_its_cookie_alone() {
    let root = TempDir::new().unwrap();
    let host = host(&root, &[Row(LISTEN, "0.0.0.0:8080", 798, 0)]);
    let bind = RawBind { netns_inode: None, ..asked(1) };
    let raw = RawFailure { bind, ..refused(1) };
    let evidence = enrich(host, &raw);
    assert_eq!(evidence.netns.inode, Some(own_netns(&root)));
    assert_eq!(evidence.sockets.len(), 1);
}

#[test]
fn a_named_namespace_is_found_by_its_file() {
    let root = TempDir::new().unwrap();
    let host = host(&root, &[Row(LISTEN, "0.0.0.0:8080", 798, 0)]);
    fs::create_dir_all(root.path().join("run/netns")).unwrap();
    let file = root.path().join("run/netns/blue");
    fs::write(&file, "").unwrap();
    let inode = u32::try_from(fs::metadata(&file).unwrap().ino()).unwrap();
    let evidence = enrich(host, &refused(inode));
    assert_eq!(evidence.netns.name.as_deref(), Some("blue"));
    assert_eq!(evidence.sockets.len(), 1);
}

#[test]
fn what_the_kernel_does_not_answer_is_a_gap() {
    const ENOENT: i32 = 2;
    const EOPNOTSUPP: i32 = 95;
    for (replies, says) in [
        (vec![netlink(2, &(-EOPNOTSUPP).to_ne_bytes())], "modprobe"),
        (vec![netlink(2, &(-ENOENT).to_ne_bytes())], "modprobe"),
        (vec![netlink(3, &(-ENOENT).to_ne_bytes())], "modprobe"),
        (vec![vec![1, 2, 3]], "cut short"),
        (Vec::new(), "sock_diag"),
    ] {
        let root = TempDir::new().unwrap();
        let host = host_replying(&root, replies);
        let evidence = enrich(host, &refused(own_netns(&root)));
        let gap = evidence.gaps.iter().find(|gap| gap.what == Fact::Sockets).unwrap();
        assert!(gap.why.contains(says), "{gap:?}");
    }
}

#[test]
fn a_port_that_was_not_asked_for_lists_no_sockets() {
    let root = TempDir::new().unwrap();
    let host = host(&root, &[Row(LISTEN, "0.0.0.0:8080", 798, 0)]);
    let bind = RawBind { port: 0, ..asked(own_netns(&root)) };
    let raw = RawFailure { bind, ..refused(1) };
    assert_eq!(enrich(host, &raw).sockets, []);
}

#[test]
fn the_culprit_fills_in_what_netlink_does_not_tell() {
    let root = TempDir::new().unwrap();
    let rows = [Row(LISTEN, "10.0.0.1:8080", 1, 0), Row(LISTEN, "10.0.0.2:8080", 2, 0)];
    let culprit = RawCulprit {
        cookie: Some(1002),
        inode: Some(2),
        kernels_own: false,
        state: LISTEN,
        address: "10.0.0.2".parse().unwrap(),
        reuseaddr: true,
        reuseport: false,
        v6only: None,
        uid: Some(1004),
        device: 0,
    };
    let host = host(&root, &rows);
    let raw = RawFailure { culprit: Some(culprit), ..refused(own_netns(&root)) };
    let sockets = enrich(host, &raw).sockets;
    assert_eq!((sockets[0].refused, sockets[0].reuseaddr), (Some(false), None));
    assert_eq!((sockets[1].refused, sockets[1].reuseaddr), (Some(true), Some(true)));
}

/// A minisock is in TIME-WAIT for the kernel's check, and in the state of the socket that it
/// replaces for netlink; before Linux 5.12 there may be no cookie to identify its entry.
#[test]
fn a_minisock_is_the_row_that_it_stands_for() {
    const FIN_WAIT_2: u8 = 5;
    let address = "10.0.0.2".parse().unwrap();
    for (state, other) in [(FIN_WAIT_2, LISTEN), (TIME_WAIT, FIN_WAIT_2)] {
        let root = TempDir::new().unwrap();
        let host =
            host(&root, &[Row(state, "10.0.0.2:8080", 0, 900), Row(other, "10.0.0.1:8080", 2, 0)]);
        let culprit = Some(RawCulprit {
            cookie: None,
            inode: None,
            kernels_own: false,
            state: TIME_WAIT,
            address,
            reuseaddr: false,
            reuseport: false,
            v6only: None,
            uid: None,
            device: 0,
        });
        let sockets = enrich(host, &RawFailure { culprit, ..refused(own_netns(&root)) }).sockets;
        let refused = sockets.iter().filter(|socket| socket.refused == Some(true));
        assert_eq!(refused.map(|row| row.local.ip()).collect::<Vec<_>>(), [address]);
        assert_eq!(sockets.len(), 2, "{sockets:?}");
    }
}

/// In the tracepoint set the scope id is not visible.
#[test]
fn the_device_of_a_link_local_address_is_not_known_to_be_none() {
    for (address, device, is_known) in [
        ("fe80::1", Some(0), false),
        ("ff02::fb", Some(0), false),
        ("fe80::1", Some(1), true),
        ("ff05::2", Some(0), true),
        ("2001:db8::1", Some(0), true),
        ("169.254.0.1", Some(0), true),
        ("::", None, false),
    ] {
        let address = address.parse().unwrap();
        let mut gaps = Vec::new();
        let failure = hooked::failure(&RawBind { address, device, ..asked(1) }, &mut gaps);
        assert_eq!(failure.device.map(|device| device.index), device.filter(|&index| index != 0));
        let gap = gaps.iter().any(|gap| gap.what == Fact::Device);
        assert_eq!(gap, !is_known, "{address} {device:?}");
    }
}

/// A bind to `::` differs from a bind whose address was not seen.
#[test]
fn an_address_that_was_not_seen_is_a_gap() {
    for address_seen in [true, false] {
        let address = "::".parse().unwrap();
        let mut gaps = Vec::new();
        hooked::failure(&RawBind { address, address_seen, ..asked(1) }, &mut gaps);
        assert_eq!(gaps.iter().any(|gap| gap.what == Fact::Address), !address_seen);
    }
}

/// A process that only has descriptors in flight is not named.
#[test]
fn only_who_bound_it_is_named_where_nobody_has_it_open() {
    for (binder, under_way, unheld, named) in [
        (Some((41, 100)), vec![42], Unheld::InFlight, Some(41)),
        (Some((41, 99)), vec![42], Unheld::Nobody, None),
        (None, vec![41, 42], Unheld::Nobody, None),
        (None, vec![], Unheld::Kernel, None),
    ] {
        let root = TempDir::new().unwrap();
        let rows = || message(&Row(LISTEN, "0.0.0.0:8080", 798, 0)).into_iter().chain(done());
        let replies =
            [0; 2].iter().flat_map(|_| [rows().collect(), done(), done()]).collect::<Vec<_>>();
        let host = host_replying(&root, replies);
        process(root.path(), 41, 1, 100, "/system.slice/a.service", &[(3, 5)]);
        process(root.path(), 42, 1, 100, "/system.slice/b.service", &[]);
        let mut records = OnRecord::default();
        if let Some((pid, ticks)) = binder {
            let owner = Owner { pid, started_ns: ticks * 10_000_000, ..Owner::zeroed() };
            records.owners.insert(1798, owner);
        }
        let files = Box::new(UnderWay(under_way.clone()));
        let evidence = Enricher::new(host, Box::new(records), files)
            .enrich(&refused(own_netns(&root)), DEADLINE);
        let socket = &evidence.sockets[0];
        let holders: Vec<_> = socket.holders.iter().map(|holder| holder.pid).collect();
        assert_eq!(socket.unheld, Some(unheld), "{binder:?} {under_way:?}");
        assert_eq!(holders, named.into_iter().collect::<Vec<_>>(), "{binder:?} {under_way:?}");
        let gap = evidence.gaps.iter().find(|gap| gap.what == Fact::Unheld);
        assert_eq!(gap.is_some(), unheld == Unheld::Nobody, "{:?}", evidence.gaps);
    }
}

#[test]
fn without_time_it_is_not_known_what_keeps_a_socket() {
    for (patience, unheld) in [(Duration::ZERO, None), (DEADLINE * 40, Some(Unheld::Kernel))] {
        let root = TempDir::new().unwrap();
        let rows = || message(&Row(LISTEN, "0.0.0.0:8080", 798, 0)).into_iter().chain(done());
        let replies = [0; 2].iter().flat_map(|_| [rows().collect(), done(), done()]).collect();
        let mut enricher = Enricher::new(
            host_replying(&root, replies),
            Box::new(NoRecords),
            Box::new(UnderWay(Vec::new())),
        );
        let evidence = enricher.enrich(&refused(own_netns(&root)), patience);
        assert_eq!(evidence.sockets[0].unheld, unheld);
        let gap = evidence.gaps.iter().any(|gap| gap.what == Fact::Unheld);
        assert_eq!(gap, unheld.is_none(), "{:?}", evidence.gaps);
    }
}
