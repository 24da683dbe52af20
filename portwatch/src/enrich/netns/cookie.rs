//! Finds a network namespace by its cookie.

use std::{
    collections::HashSet,
    io::ErrorKind,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    may_be_denied,
    places::{inode, names, open, processes},
};
use crate::{
    enrich::host::{Host, NetnsRef},
    evidence::{Fact, Gap},
    kernel::nsfs,
};

/// The most namespaces that are entered during a search.
const MOST_TRIED: usize = 256;
/// Time limit for the search, and its share of the event's time where that is longer.
const SEARCH: Duration = Duration::from_millis(100);
const PART: (u32, u32) = (2, 5);

/// Why a namespace was not found by its cookie.
pub enum NotFound {
    /// The kernel does not report the cookies of namespaces.
    Unasked,
    /// Not all namespaces could be tried, because of missing permissions or because of the time
    /// limit.
    Untried { denied: bool },
    /// No namespace with a process or a name has this cookie.
    Gone,
}

impl NotFound {
    /// Returns the gap for this reason.
    pub fn gap(self) -> Gap {
        const BEGINS: &str = "the socket is in another network namespace than its process";
        match self {
            Self::Untried { denied: true } => Gap::denied(
                Fact::Netns,
                format!("{BEGINS}, and access to some namespaces was denied"),
            ),
            Self::Untried { denied: false } => {
                Gap::new(Fact::Netns, format!("{BEGINS}, which was not found before the deadline"))
            }
            Self::Gone | Self::Unasked => Gap::new(
                Fact::Netns,
                format!("{BEGINS}, which has no process and no name to enter it by"),
            ),
        }
    }
}

/// Returns the inode of the namespace with this cookie: the task's namespace, or any namespace
/// that has a name or a process.
///
/// # Errors
/// The reason why it was not found.
pub fn find(host: &Host, cookie: u64, of_task: &Path, deadline: Instant) -> Result<u32, NotFound> {
    let now = Instant::now();
    let part = deadline.saturating_duration_since(now) * PART.0 / PART.1;
    let deadline = deadline.min(now + part.max(SEARCH));
    let own = host.proc_root.join("self/ns/net");
    let own_inode = inode(&own);
    let mut tried = HashSet::new();
    let mut missed = None;
    for path in [of_task.to_owned(), own].into_iter().chain(names(host)).chain(processes(host)) {
        if Instant::now() > deadline || tried.len() >= MOST_TRIED {
            return Err(NotFound::Untried { denied: false });
        }
        let entered = nsfs::inode(&path).and_then(|inode| {
            if !tried.insert(inode) {
                return Ok(None);
            }
            let way = match Some(inode) == own_inode {
                true => NetnsRef::Own,
                false => NetnsRef::Other(open(&path, inode)?),
            };
            Ok(Some((inode, host.sock_diag(&way)?.netns_cookie())))
        });
        match entered {
            Ok(Some((_, None))) => return Err(NotFound::Unasked),
            Ok(Some((inode, Some(own)))) if own == cookie => return Ok(inode),
            Ok(_) => {}
            // A process that has exited has no namespace. Nobody can access one that is just
            // exiting.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !may_be_denied() => {}
            Err(error) => {
                let denied = error.kind() == ErrorKind::PermissionDenied;
                missed = missed.or(Some(NotFound::Untried { denied }));
            }
        }
    }
    Err(missed.unwrap_or(NotFound::Gone))
}
