//! The failing socket's network namespace: its name, how to enter it, and a sock_diag socket
//! in it.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use rustix::thread::{CapabilitySet, capabilities};

use crate::{
    enrich::{
        Look,
        host::{DiagSocket, Host, NetnsRef},
    },
    evidence::{Evidence, Fact, Gap, Netns},
    kernel::nsfs::Hidden,
};

pub mod again;
mod cookie;
mod places;
mod residents;

use cookie::NotFound;
pub use places::all;
use places::{any_process, denial, inode, named, open};
pub use residents::note_resident;

/// The most namespaces that are kept open.
const MOST_OPEN: usize = 64;
/// How long a namespace without failed binds is kept open. A socket keeps its namespace alive,
/// and the agent must not do that for longer than necessary.
const KEPT: Duration = Duration::from_secs(2);
/// The longest time that a namespace is kept open, because names and settings may change.
const BELIEVED: Duration = Duration::from_secs(10);

/// The namespaces of recent failed binds.
#[derive(Default)]
pub struct Namespaces {
    /// By inode. An inode cannot be reused while the socket keeps the namespace alive.
    open: HashMap<u32, Open>,
    /// Cookies of namespaces that a search did not find. The search is not repeated for each
    /// failed bind there.
    unfound: HashMap<u64, (Instant, Gap)>,
}

struct Open {
    netns: Netns,
    /// The cookie of the namespace, if the kernel reports it (5.14).
    cookie: Option<u64>,
    gaps: Vec<Gap>,
    diag: Box<dyn DiagSocket>,
    opened: Instant,
    used: Instant,
}

impl Open {
    fn new(netns: Netns, gaps: Vec<Gap>, diag: Box<dyn DiagSocket>) -> Self {
        let now = Instant::now();
        Self { netns, cookie: diag.netns_cookie(), gaps, diag, opened: now, used: now }
    }
}

impl Namespaces {
    /// Describes the namespace of a failed bind and enters it. If it cannot be entered, the
    /// sockets there cannot be listed, and a gap says so.
    pub fn enter(
        &mut self,
        look: &Look<'_>,
        gaps: &mut Vec<Gap>,
    ) -> (Netns, Option<&mut dyn DiagSocket>) {
        let &Look { host, bind, .. } = look;
        self.release_idle();
        let wanted = match self.locate(look, gaps) {
            Ok(wanted) => wanted,
            Err(gap) => {
                gaps.push(gap);
                return (Netns { cookie: bind.netns_cookie, ..Netns::default() }, None);
            }
        };
        if !self.open.contains_key(&wanted) {
            let mut found = Vec::new();
            let (netns, way) = find(look, wanted, &mut found);
            match way.map(|way| host.sock_diag(&way)) {
                Some(Ok(diag)) => {
                    self.make_room();
                    self.open.insert(wanted, Open::new(netns, found, diag));
                }
                Some(Err(error)) => {
                    let why = format!("sock_diag cannot be opened there: {error}");
                    gaps.extend(found);
                    gaps.push(Gap::of_error(Fact::Sockets, why, &error));
                    return (netns, None);
                }
                None => {
                    gaps.extend(found);
                    return (netns, None);
                }
            }
        }
        match self.open.get_mut(&wanted) {
            Some(open) if differ(bind.netns_cookie, open.cookie) => {
                gaps.push(Gap::new(
                    Fact::Netns,
                    "it was removed before it could be entered, and another namespace has its inode",
                ));
                let inode = Some(wanted);
                (Netns { inode, cookie: bind.netns_cookie, ..Netns::default() }, None)
            }
            Some(open) => {
                open.used = Instant::now();
                gaps.extend(open.gaps.iter().cloned());
                (Netns { cookie: bind.netns_cookie, ..open.netns.clone() }, Some(&mut *open.diag))
            }
            None => (Netns::default(), None),
        }
    }

    /// Returns the inode of the socket's namespace. If the hooks saw only the cookie, the
    /// socket is usually not in the task's namespace: a socket stays where it was created, and
    /// its process may change its namespace before it binds.
    ///
    /// # Errors
    /// The gap that says why the namespace was not found.
    fn locate(&mut self, look: &Look<'_>, gaps: &mut Vec<Gap>) -> Result<u32, Gap> {
        let &Look { host, bind, deadline, .. } = look;
        if let Some(inode) = bind.netns_inode {
            return Ok(inode);
        }
        // A bind that no process has attempted would be made from this process's namespace.
        let of_task = match look.pid() {
            Some(pid) => host.proc_file(pid, "ns/net"),
            None => host.proc_root.join("self/ns/net"),
        };
        let gone =
            || Gap::new(Fact::Netns, "the process had exited before its namespace could be read");
        let Some(cookie) = bind.netns_cookie else { return inode(&of_task).ok_or_else(gone) };
        let at_hand = self.open.iter().find(|(_, open)| open.cookie == Some(cookie));
        if let Some((&inode, _)) = at_hand {
            return Ok(inode);
        }
        if let Some((_, gap)) = self.unfound.get(&cookie).filter(|(at, _)| at.elapsed() < KEPT) {
            return Err(gap.clone());
        }
        let found = match cookie::find(host, cookie, &of_task, deadline) {
            Ok(inode) => return Ok(inode),
            // Before 5.14 Linux does not report whether it is the task's namespace.
            Err(NotFound::Unasked) => {
                let inode = inode(&of_task).ok_or_else(gone)?;
                gaps.push(Gap::new(
                    Fact::NetnsCookie,
                    "assumed to be the failing process's namespace: before Linux 5.14 that cannot \
                     be verified",
                ));
                return Ok(inode);
            }
            Err(found) => found,
        };
        let gap = found.gap();
        if self.unfound.len() >= MOST_OPEN {
            self.unfound.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if self.unfound.len() < MOST_OPEN {
            self.unfound.insert(cookie, (Instant::now(), gap.clone()));
        }
        Err(gap)
    }

    /// Enters a known namespace, and keeps it open. Returns its name.
    ///
    /// # Errors
    /// Access was denied.
    pub fn admit(&mut self, host: &Host, way: &NetnsRef) -> io::Result<Netns> {
        let inode = match way {
            NetnsRef::Own => inode(&host.proc_root.join("self/ns/net")),
            NetnsRef::Other(file) => u32::try_from(file.metadata()?.ino()).ok(),
        };
        let inode = inode.ok_or(ErrorKind::NotFound)?;
        let diag = host.sock_diag(way)?;
        let mut gaps = Vec::new();
        let name = named(host, inode).and_then(|(name, _)| name);
        let netns = describe(host, inode, diag.netns_cookie(), name, &mut gaps);
        self.make_room();
        self.open.insert(inode, Open::new(netns.clone(), gaps, diag));
        Ok(netns)
    }

    /// Closes a socket that may still contain part of a reply.
    pub fn forget(&mut self, netns: &Netns) {
        if let Some(inode) = netns.inode {
            self.open.remove(&inode);
        }
    }

    /// Closes namespaces that have not been used for a while.
    pub fn release_idle(&mut self) {
        self.open.retain(|_, open| open.used.elapsed() < KEPT && open.opened.elapsed() < BELIEVED);
    }

    /// Returns the time until a socket must be closed, or `None` if no socket is open.
    pub fn next_release(&self) -> Option<Duration> {
        self.open.values().map(|open| KEPT.saturating_sub(open.used.elapsed())).max()
    }

    fn make_room(&mut self) {
        if self.open.len() >= MOST_OPEN
            && let Some(oldest) =
                self.open.iter().min_by_key(|(_, open)| open.used).map(|(&inode, _)| inode)
        {
            self.open.remove(&oldest);
        }
    }
}

/// Describes the namespace and finds a path to enter it.
fn find(look: &Look<'_>, wanted: u32, gaps: &mut Vec<Gap>) -> (Netns, Option<NetnsRef>) {
    let &Look { host, bind, deadline, .. } = look;
    let named = named(host, wanted);
    let name = named.as_ref().and_then(|(name, _)| name.clone());
    let netns = describe(host, wanted, bind.netns_cookie, name, gaps);
    if inode(&host.proc_root.join("self/ns/net")) == Some(wanted) {
        return (netns, Some(NetnsRef::Own));
    }
    // Each path is opened before it is used: the process may exit between the check of its link
    // and its use.
    let own_way = match look.pid() {
        Some(pid) => open(&host.proc_file(pid, "ns/net"), wanted),
        None => Err(ErrorKind::NotFound.into()),
    };
    let gone = own_way.as_ref().is_err_and(|why| why.kind() == ErrorKind::NotFound);
    let way = own_way
        .or_else(|why| named.and_then(|(_, path)| open(&path, wanted).ok()).ok_or(why))
        .or_else(|why| any_process(host, wanted, deadline).map_err(|other| denial(why, other)));
    if let Err(why) = &way {
        gaps.push(if why.kind() == ErrorKind::PermissionDenied && (!gone || may_be_denied()) {
            Gap::denied(Fact::Netns, if gone {
                "the failing process had exited, and access to those that may share its namespace \
                 was denied"
            } else {
                "access to the failing process's namespace was denied"
            })
        } else if why.kind() == ErrorKind::TimedOut {
            Gap::new(Fact::Netns, "no process in it was found before the deadline")
        } else {
            let gone = "its last process had exited and it has no name, so it could not be entered";
            Gap::new(Fact::Netns, host.hidden().map_or(gone, Hidden::why))
        });
    }
    (netns, way.ok().map(NetnsRef::Other))
}

/// Returns whether this process may lack the capability to read other processes. Nobody can
/// access a process that is just exiting.
fn may_be_denied() -> bool {
    capabilities(None).is_ok_and(|has| !has.effective.contains(CapabilitySet::SYS_PTRACE))
}

fn describe(
    host: &Host,
    wanted: u32,
    cookie: Option<u64>,
    name: Option<String>,
    gaps: &mut Vec<Gap>,
) -> Netns {
    let own = inode(&host.proc_root.join("self/ns/net"));
    let init = inode(&host.proc_root.join("1/ns/net"));
    if init.is_none() {
        gaps.push(Gap::new(
            Fact::NetnsHost,
            "access to pid 1's namespace was denied; the agent's own is assumed to be the host's",
        ));
    }
    let host = init.or(own).map(|host| host == wanted);
    Netns { inode: Some(wanted), cookie, name, host, pid: None }
}

/// Returns whether both are known and they differ.
fn differ(one: Option<u64>, other: Option<u64>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// Marks the failing process and the holders if they run in another namespace than the
/// socket's: such a process cannot be used to enter the socket's namespace.
pub fn note_strangers(host: &Host, evidence: &mut Evidence) {
    const MOST: usize = 32;
    let Evidence { netns, process, sockets, .. } = evidence;
    // Without a path to enter it, commands run in the host's namespace.
    let Some(inside) = netns.inode.filter(|_| netns.host == Some(false)) else { return };
    let mut known = HashMap::new();
    let holders = sockets.iter_mut().flat_map(|socket| &mut socket.holders);
    for process in std::iter::once(process).chain(holders) {
        if known.len() >= MOST && !known.contains_key(&process.pid) {
            break;
        }
        let lives = *known
            .entry(process.pid)
            .or_insert_with(|| inode(&host.proc_file(process.pid, "ns/net")));
        process.netns = lives.filter(|&lives| lives != inside);
    }
}
