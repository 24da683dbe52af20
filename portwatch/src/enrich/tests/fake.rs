//! A host that is a directory, a kernel that is recorded replies, and a bind that failed
//! there.

use std::time::Instant;

use portwatch_common::OpenFile;

use super::*;
use crate::kernel::files::{Files, Looked, Sought, Take};

/// Replies in order; when none is left, it times out, as if the kernel did not answer.
pub struct Recorded {
    replies: Vec<Vec<u8>>,
    current: Vec<u8>,
}

impl DiagSocket for Recorded {
    fn send(&mut self, _request: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        if self.replies.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.current = self.replies.remove(0);
        Ok(&self.current)
    }

    fn device_index(&self, _name: &str) -> Option<u32> {
        None
    }

    fn device_name(&self, index: u32) -> Option<String> {
        (index == 1).then(|| "lo".to_owned())
    }

    fn netns_cookie(&self) -> Option<u64> {
        Some(1)
    }

    fn ephemeral(&self) -> Option<Ephemeral> {
        Some(Ephemeral { low: 32768, high: 60999, reserved: String::new(), usage: None })
    }
}

/// An entry of a reply: state, own address, inode, expiry in ms.
pub struct Row(pub u8, pub &'static str, pub u32, pub u32);

pub fn message(row: &Row) -> Vec<u8> {
    let &Row(state, local, inode, expires) = row;
    let local: SocketAddr = local.parse().unwrap();
    let mut body = vec![2, state, if expires > 0 { 3 } else { 0 }, 0];
    body.extend(local.port().to_be_bytes());
    body.extend([0, 0]);
    let SocketAddr::V4(v4) = local else { panic!("the fake speaks IPv4") };
    body.extend(v4.ip().octets());
    body.extend([0; 12 + 16 + 4]);
    body.extend(u64::from(inode + 1000).to_ne_bytes());
    body.extend(expires.to_ne_bytes());
    body.extend([0; 8]);
    body.extend(1004u32.to_ne_bytes());
    body.extend(inode.to_ne_bytes());
    netlink(20, &body)
}

pub fn netlink(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes
}

pub fn done() -> Vec<u8> {
    netlink(3, &[0; 4])
}

/// The fake host with one reply of entries for IPv4 and none for IPv6.
pub fn host(root: &TempDir, rows: &[Row]) -> Host {
    let rows: Vec<u8> = rows.iter().flat_map(message).chain(done()).collect();
    host_replying(root, vec![rows, done(), done()])
}

pub fn host_replying(root: &TempDir, replies: Vec<Vec<u8>>) -> Host {
    let namespace = |folder: &str| {
        fs::create_dir_all(root.path().join(folder)).unwrap();
        fs::write(root.path().join(folder).join("net"), "").unwrap();
    };
    namespace("proc/self/ns");
    namespace("proc/1/ns");
    fs::create_dir_all(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\ndeploy:x:1004:1004::/:\n").unwrap();
    Host::fake(
        root.path(),
        Box::new(move |_: &NetnsRef| {
            Ok(Box::new(Recorded { replies: replies.clone(), current: Vec::new() }))
        }),
    )
}

pub fn own_netns(root: &TempDir) -> u32 {
    let ino = fs::metadata(root.path().join("proc/self/ns/net")).unwrap().ino();
    u32::try_from(ino).unwrap()
}

/// A process in the fake /proc that started `ticks` after boot and has sockets
/// open.
pub fn process(root: &Path, pid: u32, ppid: u32, ticks: u64, cgroup: &str, sockets: &[(u32, u64)]) {
    let folder = root.join("proc").join(pid.to_string());
    fs::create_dir_all(folder.join("fd")).unwrap();
    let stat = format!(
        "{pid} (java) S {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {ticks} 0 0 0 0 0 0 0 0 0 0 0 0 \
         0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    );
    fs::write(folder.join("stat"), stat).unwrap();
    fs::write(folder.join("cmdline"), format!("java\0-jar\0/opt/app-{pid}.jar\0")).unwrap();
    fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
    symlink("/usr/bin/java", folder.join("exe")).unwrap();
    for (fd, inode) in sockets {
        symlink(format!("socket:[{inode}]"), folder.join("fd").join(fd.to_string())).unwrap();
    }
}

pub fn asked(netns: u32) -> RawBind {
    RawBind {
        at_ns: 1,
        stage: Stage::Bind,
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
        address: "0.0.0.0".parse().unwrap(),
        address_seen: true,
        port: 8080,
        device: Some(1),
        reuseaddr: Some(true),
        reuseport: Some(false),
        v6only: None,
        socket_uid: Some(1004),
        socket_cookie: Some(7),
        netns_inode: Some(netns),
        netns_cookie: Some(1),
    }
}

pub fn refused(netns: u32) -> RawFailure {
    RawFailure {
        bind: asked(netns),
        culprit: None,
        task: RawTask {
            user: 0,
            pid: 52110,
            tid: 52110,
            ppid: Some(700),
            uid: 1004,
            started_ns: Some(9_000_000_123),
            cgroup_id: 5,
            comm: "java".to_owned(),
            cmdline: Unredacted::new(b"java", false),
            kernel_thread: false,
        },
        source: bytemuck::Zeroable::zeroed(),
        watch: None,
    }
}

pub fn enrich(host: Host, raw: &RawFailure) -> Evidence {
    let files = Box::new(Loaded::Err(SearchError::NotLoaded));
    Enricher::new(host, Box::new(NoRecords), files).enrich(raw, DEADLINE)
}

pub const LISTEN: u8 = 10;
pub const TIME_WAIT: u8 = 6;

/// Owners by cookie, and the port's newest sockets.
#[derive(Clone, Default)]
pub struct OnRecord {
    pub owners: HashMap<u64, Owner>,
    pub gone_cgroups: HashMap<u64, String>,
    pub port: Option<PortUse>,
}

impl Records for OnRecord {
    fn owner(&self, cookie: u64) -> Option<Owner> {
        self.owners.get(&cookie).copied()
    }

    fn port(&self, _port: Port) -> Option<PortUse> {
        self.port
    }

    fn gone_cgroup(&self, id: u64) -> Option<String> {
        self.gone_cgroups.get(&id).cloned()
    }
}

/// No process has a socket open; descriptors are in flight to these.
pub struct UnderWay(pub Vec<u32>);

impl Files for UnderWay {
    fn search(&mut self, sought: Sought<'_>, _: Instant, take: Take<'_>) -> Looked {
        if matches!(sought, Sought::InFlight) {
            for &pid in &self.0 {
                take(OpenFile { inode: 5, pid, tid: pid, fd: 9, reserved: 0 });
            }
        }
        Ok(())
    }
}

/// The kernel's own search: pid and inode of each descriptor.
#[derive(Clone, Default)]
pub struct OpenFiles(pub Vec<(u32, u64)>);

impl Files for OpenFiles {
    fn search(&mut self, sought: Sought<'_>, _: Instant, take: Take<'_>) -> Looked {
        let Sought::Sockets(inodes) = sought else { return Ok(()) };
        for &(pid, inode) in self.0.iter().filter(|(_, inode)| inodes.contains(inode)) {
            take(OpenFile { inode, pid, tid: pid, fd: 3, reserved: 0 });
        }
        Ok(())
    }
}
