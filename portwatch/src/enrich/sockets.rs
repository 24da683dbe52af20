//! Lists every socket on one port of one network namespace, over sock_diag.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use portwatch_common::{Port, SocketOptions};

use crate::{
    conflict::{self, Kernel, Verdict},
    decode::RawCulprit,
    enrich::{
        host::{DiagSocket, Host},
        inherited::{Inherited, complete},
        record,
        sock_diag::{self, Entry, Progress, Query, ReplyError},
    },
    evidence::{Connections, Fact, Failure, Family, Gap, Protocol, Socket, State, TimeWait},
    kernel::records::{NoRecords, Records},
};

/// Sockets that are kept one by one: listeners, bound and UDP sockets.
const MOST_HOLDING: usize = 256;
/// Connections that are kept: a few with a process, and in addition one for each state and own
/// address.
const MOST_CONNECTIONS: usize = 64;
/// Connections that are kept though they look alike: each may belong to another process, for
/// example to several workers whose listener has closed.
const MOST_ALIKE: usize = 8;
/// TIME-WAIT entries that are kept: the longest-lived for each own address.
const MOST_TIME_WAIT: usize = 8;

/// Time limit of a listing that nothing else waits for.
pub const PATIENT: Duration = Duration::from_secs(10);

/// Why sockets could not be listed, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The kernel lists no sockets of this protocol.
    #[error("the kernel lists no sockets of this protocol")]
    Protocol,
    /// The kernel has no listing for them yet.
    #[error("the kernel's socket listing is not loaded (modprobe inet_diag tcp_diag udp_diag)")]
    NotLoaded,
    /// The kernel rejected the request, or did not answer.
    #[error("sock_diag: {0}")]
    Io(#[from] io::Error),
    /// The kernel's answer is invalid.
    #[error("sock_diag: {0}")]
    Reply(#[source] ReplyError),
    /// There are more than the limit.
    #[error("sock_diag: more sockets than are read")]
    TooMany,
    /// The deadline has passed.
    #[error("sock_diag: listing took longer than its deadline ({rows} sockets)")]
    Late {
        /// Entries that had been listed by then.
        rows: usize,
    },
}

impl From<ReplyError> for ListError {
    fn from(error: ReplyError) -> Self {
        const ENOENT: i32 = 2;
        const EOPNOTSUPP: i32 = 95;
        match error {
            ReplyError::Refused(ENOENT | EOPNOTSUPP) => Self::NotLoaded,
            error => Self::Reply(error),
        }
    }
}

/// What was found on the port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The entries that are kept.
    pub sockets: Vec<Socket>,
    /// Count of all TIME-WAIT entries.
    pub time_wait: TimeWait,
    /// Count of the connections.
    pub connections: Connections,
    /// The kernel's answer was invalid or late; the netlink socket may still have a part of
    /// it.
    pub broken: bool,
    /// Entries that are not kept because of their number, without TIME-WAIT.
    left_out: usize,
    /// Cookie of an entry that is kept before others like it.
    wanted: Option<u64>,
    /// Entries kept of each kind.
    kept: BTreeMap<Kind, usize>,
    /// Index of the first kept entry of those that look alike.
    first: HashMap<Look, usize>,
    /// The inodes of connections that are kept.
    inodes: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Holding,
    Connection,
    TimeWait,
}

impl Kind {
    fn of(state: State) -> Self {
        match state {
            State::Listen | State::Bound | State::Unconn => Self::Holding,
            State::TimeWait => Self::TimeWait,
            _ => Self::Connection,
        }
    }

    /// Returns how many are kept.
    fn most(self) -> usize {
        match self {
            Self::Holding => MOST_HOLDING,
            Self::Connection => MOST_CONNECTIONS,
            Self::TimeWait => MOST_TIME_WAIT,
        }
    }
}

/// State, own address, whether a process may have it open, and its options, if they are
/// recorded: another connection with the same values adds nothing.
type Look = (State, SocketAddr, bool, Option<SocketOptions>);

/// The fields that decide whether an entry is kept.
struct Brief {
    state: State,
    local: SocketAddr,
    inode: Option<u64>,
    cookie: Option<u64>,
    expires_ms: Option<u64>,
    options: Option<SocketOptions>,
}

impl Found {
    /// Adds one entry, up to the limits.
    pub fn add(&mut self, socket: Socket) {
        let Socket { state, local, inode, cookie, expires_ms, .. } = socket;
        self.put(&Brief { state, local, inode, cookie, expires_ms, options: None }, || socket);
    }

    /// Adds one entry of a reply. There may be a million, and nearly all are only counted: so
    /// the cost of one does not depend on how many are kept.
    fn take(&mut self, entry: Entry<'_>, inherited: &Inherited<'_>) {
        let Entry { state, local, inode, cookie, expires_ms, .. } = entry;
        let options = inherited.options(&entry);
        let brief = Brief { state, local, inode, cookie, expires_ms, options };
        self.put(&brief, || complete(entry.into(), options));
    }

    fn put(&mut self, row: &Brief, whole: impl FnOnce() -> Socket) {
        self.count(row);
        let kind = Kind::of(row.state);
        let look = (row.state, row.local, row.inode.is_some(), row.options);
        let wanted = self.wanted;
        let is_wanted = |cookie: Option<u64>| wanted.is_some() && cookie == wanted;
        let may_be_anothers = kind == Kind::Connection
            && self.inodes.len() < MOST_ALIKE
            && row.inode.is_some_and(|inode| !self.inodes.contains(&inode));
        let has_twin = kind != Kind::Holding && !may_be_anothers;
        let twin = has_twin.then(|| self.first.get(&look)).flatten();
        match twin.and_then(|&place| self.sockets.get_mut(place)) {
            // A connection with the same end adds nothing; of TIME-WAIT entries the
            // longest-lived counts, unless one is wanted.
            Some(kept) if is_wanted(kept.cookie) => {}
            Some(kept) if kept.expires_ms < row.expires_ms || is_wanted(row.cookie) => {
                *kept = whole();
            }
            Some(_) => {}
            None => {
                let kept = self.kept.entry(kind).or_default();
                if *kept < kind.most() || is_wanted(row.cookie) {
                    *kept += 1;
                    self.first.entry(look).or_insert(self.sockets.len());
                    self.inodes.extend(row.inode.filter(|_| kind == Kind::Connection));
                    self.sockets.push(whole());
                } else if kind != Kind::TimeWait {
                    self.left_out += 1;
                }
            }
        }
    }

    fn count(&mut self, row: &Brief) {
        let Connections { established, closing } = &mut self.connections;
        let number = match row.state {
            State::TimeWait => {
                let longest = &mut self.time_wait.max_remaining_ms;
                *longest = (*longest).max(row.expires_ms);
                &mut self.time_wait.count
            }
            State::Established => established,
            State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::LastAck
            | State::Closing => closing,
            _ => return,
        };
        *number = number.saturating_add(1);
    }

    /// Adds the gaps for what was listed or counted only in part.
    fn incomplete(&self, why: &ListError, gaps: &mut Vec<Gap>) {
        const COUNTED: &str = "not all were listed, so there may be more";
        gaps.push(Gap::new(Fact::Sockets, why.to_string()));
        if self.time_wait.count > 0 {
            gaps.push(Gap::new(Fact::TimeWait, COUNTED));
        }
        if self.connections != Connections::default() {
            gaps.push(Gap::new(Fact::Connections, COUNTED));
        }
    }
}

/// The search, and what is known before it.
pub struct Search<'a> {
    /// The host.
    pub host: &'a Host,
    /// The owner record.
    pub records: &'a dyn Records,
    /// The failed bind.
    pub failure: &'a Failure,
    /// The blocking socket, if the hooks saw it.
    pub culprit: Option<&'a RawCulprit>,
    /// The namespace's cookie.
    pub netns_cookie: Option<u64>,
    /// Its inode.
    pub netns_inode: Option<u32>,
    /// List also what the diagnosis does not need.
    pub everything: bool,
}

impl Search<'_> {
    /// Lists the sockets on the port in the namespace of `diag`. What cannot be listed before
    /// the deadline becomes a gap.
    pub fn run(&self, diag: &mut dyn DiagSocket, deadline: Instant, gaps: &mut Vec<Gap>) -> Found {
        let wanted = self.culprit.and_then(|culprit| culprit.cookie);
        let mut found = Found { wanted, ..Found::default() };
        let listed = match self.failure.protocol {
            Protocol::Tcp => self.tcp(diag, deadline, &mut found, gaps),
            protocol => self.other(protocol, diag, deadline, &mut found, gaps),
        };
        if let Err(why) = listed {
            found.broken = true;
            found.incomplete(&why, gaps);
        }
        let origin = self.records.origin(self.failure.port);
        for row in found.sockets.iter_mut().filter(|row| row.remote.is_some()) {
            row.origin = origin;
        }
        for device in found.sockets.iter_mut().filter_map(|row| row.device.as_mut()) {
            device.name = diag.device_name(device.index);
        }
        if found.left_out > 0 {
            gaps.push(Gap::new(
                Fact::Sockets,
                format!("{} more sockets on this port are not listed", found.left_out),
            ));
        }
        found
    }

    /// Lists TCP sockets. Listeners are listed at once. The walks over all other sockets take
    /// milliseconds on a busy server, so they are skipped if the owner record shows that they
    /// would find nothing and the failed bind is explained without them.
    fn tcp(
        &self,
        diag: &mut dyn DiagSocket,
        deadline: Instant,
        found: &mut Found,
        gaps: &mut Vec<Gap>,
    ) -> Result<(), ListError> {
        let port = self.failure.port;
        let inherited = Inherited::of(self.records, self.netns_inode, port);
        let mut dump = |query, found: &mut Found| {
            dump(diag, query, port, deadline, found, &inherited)
        };
        dump(Query::Listeners, found)?;
        let incomplete = |found: &mut Found| self.everything || !self.is_explained(found);
        if incomplete(found) || self.records.may_have_connected(port) {
            dump(Query::Connections, found)?;
        }
        if incomplete(found) || self.may_be_bound(found) {
            if self.host.shows_bound_sockets() {
                dump(Query::Bound, found)?;
            } else {
                gaps.push(Gap::new(
                    Fact::Bound,
                    "before Linux 6.8 the kernel does not list sockets that are bound but not \
                     listening",
                ));
            }
        }
        Ok(())
    }

    fn other(
        &self,
        protocol: Protocol,
        diag: &mut dyn DiagSocket,
        deadline: Instant,
        found: &mut Found,
        gaps: &mut Vec<Gap>,
    ) -> Result<(), ListError> {
        let Some(protocol) = sock_diag::protocol_number(protocol) else {
            gaps.push(Gap::new(Fact::Sockets, ListError::Protocol.to_string()));
            return Ok(());
        };
        let none = Inherited::of(&NoRecords, None, 0);
        for family in [Family::Ipv4, Family::Ipv6] {
            let query = Query::Other { protocol, family };
            dump(diag, query, self.failure.port, deadline, found, &none)?;
        }
        Ok(())
    }

    /// Returns whether one of the entries surely blocks.
    fn is_explained(&self, found: &mut Found) -> bool {
        record::recall_options(self.records, &mut found.sockets);
        let kernel = Kernel::of(&self.host.release);
        found.sockets.iter().any(|row| {
            let is_culprit = found.wanted.is_some() && row.cookie == found.wanted;
            let is_itself = row.cookie.is_some() && row.cookie == self.failure.cookie;
            let refuses = matches!(conflict::judge(kernel, self.failure, row), Verdict::Refuses(_));
            is_culprit || (refuses && !is_itself)
        })
    }

    /// Returns whether sockets on the port may be bound but not listening: more were bound
    /// than are listed.
    fn may_be_bound(&self, found: &Found) -> bool {
        let known = self.netns_cookie.and_then(|netns_cookie| {
            let protocol = u16::from(sock_diag::protocol_number(self.failure.protocol)?);
            let port = self.failure.port;
            self.records.port(Port { netns_cookie, port, protocol, reserved: 0 })
        });
        let listening = found.sockets.iter().filter(|row| row.state == State::Listen).count();
        known.is_none_or(|known| known.bound as usize > listening)
    }
}

/// Runs one walk, and repeats it once if the table changed meanwhile.
fn dump(
    diag: &mut dyn DiagSocket,
    query: Query,
    port: u16,
    deadline: Instant,
    found: &mut Found,
    inherited: &Inherited<'_>,
) -> Result<(), ListError> {
    let before = found.clone();
    let torn = dump_once(diag, query, port, deadline, |entry| found.take(entry, inherited))?;
    if torn {
        *found = before;
        dump_once(diag, query, port, deadline, |entry| found.take(entry, inherited))?;
    }
    Ok(())
}

/// Lists the sockets of `query`, at most 1,000,000. Returns whether the table changed during
/// the walk.
///
/// # Errors
/// The kernel rejected the request, or did not answer in full before the deadline. The rest of
/// the answer may still arrive, so the socket must not be used again.
pub fn dump_once(
    diag: &mut dyn DiagSocket,
    query: Query,
    port: u16,
    deadline: Instant,
    mut take: impl FnMut(Entry<'_>),
) -> Result<bool, ListError> {
    const MOST_ROWS: usize = 1_000_000;
    diag.send(&sock_diag::request(query, port))?;
    let mut torn = false;
    let mut rows = 0;
    loop {
        let bytes = diag.receive()?;
        let (progress, interrupted) = sock_diag::read_reply(bytes, query, port, |entry| {
            rows += 1;
            take(entry);
        })?;
        torn |= interrupted;
        if progress == Progress::Done {
            return Ok(torn);
        }
        if rows > MOST_ROWS {
            return Err(ListError::TooMany);
        }
        if Instant::now() > deadline {
            return Err(ListError::Late { rows });
        }
    }
}

#[cfg(test)]
mod tests;
