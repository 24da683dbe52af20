//! Decides which entries of a listing are kept, and counts all of them.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use portwatch_common::SocketOptions;

use crate::{
    enrich::{
        inherited::{Inherited, complete},
        sock_diag::Entry,
        sockets::ListError,
    },
    evidence::{Connections, Fact, Gap, Socket, State, TimeWait},
};

/// The most sockets that are kept one by one: listeners, bound sockets and UDP sockets.
pub(super) const MOST_HOLDING: usize = 256;
/// The most connections that are kept: a few with a process, and in addition one for each state
/// and own address.
pub(super) const MOST_CONNECTIONS: usize = 64;
/// The most connections that are kept although they look alike. Each may belong to another
/// process, for example to several workers whose listener is closed.
const MOST_ALIKE: usize = 8;
/// The most TIME-WAIT entries that are kept: the longest-lived one for each own address and
/// options.
pub(super) const MOST_TIME_WAIT: usize = 16;

/// What was found on the port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The entries that are kept.
    pub sockets: Vec<Socket>,
    /// Count of all TIME-WAIT entries.
    pub time_wait: TimeWait,
    /// Count of the connections.
    pub connections: Connections,
    /// Whether the kernel's answer was invalid or late. Then the netlink socket may still
    /// contain part of it.
    pub broken: bool,
    /// The number of entries that are not kept because there are too many. TIME-WAIT entries
    /// count only if they may decide although others do not block.
    pub(super) left_out: usize,
    /// The cookie of an entry that is kept before others like it.
    pub(super) wanted: Option<u64>,
    /// Entries kept of each kind.
    kept: BTreeMap<Kind, usize>,
    /// Index of the first kept entry of those that look alike.
    first: HashMap<Look, usize>,
    /// The inodes of connections that are kept.
    inodes: Vec<u64>,
    /// Whether the options of some connections are recorded.
    recorded: bool,
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

/// Returns whether it is known to set SO_REUSEADDR. Then other TIME-WAIT entries decide.
fn reuses(row: &Brief) -> bool {
    row.options.is_some_and(SocketOptions::reuseaddr)
}

/// State, own address, device, whether a process may have it open, and its options, if they are
/// recorded. Another connection with the same values adds no information.
type Look = (State, SocketAddr, u32, bool, Option<SocketOptions>);

/// The fields that decide whether an entry is kept.
struct Brief {
    state: State,
    local: SocketAddr,
    inode: Option<u64>,
    cookie: Option<u64>,
    expires_ms: Option<u64>,
    device: u32,
    options: Option<SocketOptions>,
}

impl Found {
    /// Returns an empty result. The entry with the cookie `wanted` is kept before others like
    /// it.
    pub(super) fn wanting(wanted: Option<u64>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Adds one entry, up to the limits.
    pub fn add(&mut self, socket: Socket) {
        let Socket { state, local, inode, cookie, expires_ms, .. } = socket;
        let device = socket.device.as_ref().map_or(0, |device| device.index);
        let brief = Brief { state, local, inode, cookie, expires_ms, device, options: None };
        self.put(&brief, || socket);
    }

    /// Adds one entry of a reply. There may be a million entries, and nearly all are only
    /// counted, so the cost of one entry does not depend on how many are kept.
    pub(super) fn take(&mut self, entry: Entry<'_>, inherited: &Inherited<'_>) {
        let Entry { state, local, inode, cookie, expires_ms, device, .. } = entry;
        let options = inherited.options(&entry);
        let brief = Brief { state, local, inode, cookie, expires_ms, device, options };
        self.put(&brief, || complete(entry.into(), options));
    }

    fn put(&mut self, row: &Brief, whole: impl FnOnce() -> Socket) {
        self.count(row);
        self.recorded |= row.options.is_some();
        let kind = Kind::of(row.state);
        let look = (row.state, row.local, row.device, row.inode.is_some(), row.options);
        let wanted = self.wanted;
        let is_wanted = |cookie: Option<u64>| wanted.is_some() && cookie == wanted;
        let may_be_anothers = kind == Kind::Connection
            && self.inodes.len() < MOST_ALIKE
            && row.inode.is_some_and(|inode| !self.inodes.contains(&inode));
        let has_twin = kind != Kind::Holding && !may_be_anothers;
        let twin = has_twin.then(|| self.first.get(&look)).flatten();
        match twin.and_then(|&place| self.sockets.get_mut(place)) {
            // Another connection with the same values adds no information. Of TIME-WAIT entries
            // the longest-lived one counts, unless one is wanted.
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
                } else if kind != Kind::TimeWait || (self.recorded && !reuses(row)) {
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
    pub(super) fn incomplete(&self, why: &ListError, gaps: &mut Vec<Gap>) {
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
