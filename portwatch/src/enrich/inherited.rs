//! The options of connections, which sock_diag does not report. An accepted connection has the
//! options of its listener, and TIME-WAIT has those of its connection. The hooks read them at
//! each state change of a connection.

use std::cell::Cell;

use portwatch_common::SocketOptions;

use crate::{
    enrich::{host::boottime_ns, sock_diag::Entry},
    evidence::{Socket, State},
    kernel::records::Records,
};

/// The most connections that are looked up one by one, with a system call each, for an answer
/// that depends on them: a few milliseconds.
pub const MOST_LOOKED_UP: u32 = 4096;
/// The same limit for a failed bind: a fraction of a millisecond.
pub const FEW_LOOKED_UP: u32 = 256;

/// The recorded options of the connections on one port.
pub struct Inherited<'a> {
    records: &'a dyn Records,
    /// The options of all closed connections that the kernel still keeps, if they are equal.
    closed: Option<SocketOptions>,
    left: Cell<u32>,
}

impl<'a> Inherited<'a> {
    /// Prepares a listing of a port in the network namespace with this inode. At most `most`
    /// connections are looked up.
    pub fn of(records: &'a dyn Records, netns_inode: Option<u32>, port: u16, most: u32) -> Self {
        let now = u32::try_from(boottime_ns() / 1_000_000_000).unwrap_or(u32::MAX);
        let closed = netns_inode.and_then(|inode| records.closed(inode, port, now));
        Self { records, closed, left: Cell::new(most) }
    }

    /// Returns the options of an entry, if it is a connection that the hooks have seen.
    pub fn options(&self, entry: &Entry<'_>) -> Option<SocketOptions> {
        if matches!(entry.state, State::Listen | State::Bound | State::Unconn) {
            return None;
        }
        // Only minisocks have that timer.
        let closed = self.closed.filter(|_| entry.expires_ms.is_some());
        closed.or_else(|| {
            self.left.set(self.left.get().checked_sub(1)?);
            self.records.connection(entry.cookie?, entry.local.port())
        })
    }
}

/// Adds the options to a socket.
pub fn complete(mut socket: Socket, options: Option<SocketOptions>) -> Socket {
    if let Some(options) = options {
        socket.reuseaddr = Some(options.reuseaddr());
        socket.reuseport = Some(options.reuseport());
        let v6only = socket.local.is_ipv6().then(|| options.v6only());
        socket.v6only = socket.v6only.or(v6only);
    }
    socket
}
