//! Lists every socket on one port of one network namespace, over sock_diag.

use std::{
    io,
    time::{Duration, Instant},
};

use portwatch_common::Port;

use crate::{
    conflict::{self, Kernel, Verdict},
    decode::RawCulprit,
    enrich::{
        host::{DiagSocket, Host},
        inherited::{FEW_LOOKED_UP, Inherited, MOST_LOOKED_UP},
        record,
        sock_diag::{self, Entry, Progress, Query, ReplyError},
    },
    evidence::{Fact, Failure, Family, Gap, Protocol, State},
    kernel::records::{NoRecords, Records},
};

mod found;

pub use found::Found;

/// Time limit of a listing that nothing else waits for.
pub const PATIENT: Duration = Duration::from_secs(10);

/// Why sockets could not be listed, or only some of them.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The kernel does not list sockets of this protocol.
    #[error("the kernel lists no sockets of this protocol")]
    Protocol,
    /// The kernel module that lists them is not loaded yet.
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

/// The search, and what is known before it starts.
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
    /// Whether to list also what the diagnosis does not need.
    pub everything: bool,
}

impl Search<'_> {
    /// Lists the sockets on the port in the namespace of `diag`. What cannot be listed before
    /// the deadline becomes a gap.
    pub fn run(&self, diag: &mut dyn DiagSocket, deadline: Instant, gaps: &mut Vec<Gap>) -> Found {
        let wanted = self.culprit.and_then(|culprit| culprit.cookie);
        let mut found = Found::wanting(wanted);
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
    /// milliseconds on a busy server. They are skipped if the owner record shows that they
    /// would find nothing, and the failed bind is explained without them.
    fn tcp(
        &self,
        diag: &mut dyn DiagSocket,
        deadline: Instant,
        found: &mut Found,
        gaps: &mut Vec<Gap>,
    ) -> Result<(), ListError> {
        let port = self.failure.port;
        let most = if self.everything { MOST_LOOKED_UP } else { FEW_LOOKED_UP };
        let inherited = Inherited::of(self.records, self.netns_inode, port, most);
        let mut dump =
            |query, found: &mut Found| dump(diag, query, port, deadline, found, &inherited);
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
        let none = Inherited::of(&NoRecords, None, 0, 0);
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

    /// Returns whether sockets on the port may be bound but not listening: more sockets were
    /// bound than are listed.
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
