//! The options of TCP connections, as the state changes of their sockets show them. An accepted
//! connection has the options of its listener, and so has its TIME-WAIT entry. sock_diag does
//! not report these options.

use bytemuck::{Pod, Zeroable};

use crate::{flag, record::PHI};

/// Parts of the table of connections. Ports share a part if they are equal modulo this number.
const PARTS: u32 = 256;
/// Rows of one part, a power of two.
const OF_A_PART: u32 = 64;
/// Entries of one row: 64 bytes.
const OF_A_ROW: usize = 4;
/// Rows for connections whose options are recorded, 65,536 connections: 1 MiB of kernel memory.
pub const CONNECTIONS: u32 = PARTS * OF_A_PART;
/// Ports whose closed connections are summarized, a power of two: 3 MiB.
pub const CLOSED: u32 = 65_536;
/// The kernel keeps nothing of a closed connection longer than this, in seconds. FIN-WAIT-2 and
/// TIME-WAIT last 60 s each, and a repeated FIN of the peer restarts TIME-WAIT.
pub const OLDEST_CLOSED: u32 = 300;

/// SO_REUSEADDR, SO_REUSEPORT and IPV6_V6ONLY of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketOptions(u16);

impl SocketOptions {
    /// Number of combinations.
    pub const ALL: usize = 8;
    const MASK: u16 = flag::REUSEADDR | flag::REUSEPORT | flag::V6ONLY;

    /// Creates the options from [`flag`]s.
    #[inline(always)]
    pub const fn of(flags: u16) -> Self {
        Self(flags & Self::MASK)
    }

    /// Returns whether `SO_REUSEADDR` is set.
    pub const fn reuseaddr(self) -> bool {
        self.0 & flag::REUSEADDR != 0
    }

    /// Returns whether `SO_REUSEPORT` is set.
    pub const fn reuseport(self) -> bool {
        self.0 & flag::REUSEPORT != 0
    }

    /// Returns whether `IPV6_V6ONLY` is set.
    pub const fn v6only(self) -> bool {
        self.0 & flag::V6ONLY != 0
    }

    /// Returns the combination as a number below [`ALL`](Self::ALL).
    #[inline(always)]
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// The options of one TCP socket that is or was connected, after the last change of its state.
/// A TIME-WAIT minisock has the cookie of its socket (`inet_twsk_alloc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Connection {
    /// The socket's cookie; 0 in a slot that was never used.
    pub cookie: u64,
    /// The options, below the lower half of the cookie. If two processors write to one slot at
    /// the same time, they leave an entry whose halves differ.
    pub options: u64,
}

impl Connection {
    /// Returns the entry of a socket.
    #[inline(always)]
    pub const fn new(cookie: u64, options: SocketOptions) -> Self {
        Self { cookie, options: cookie << 32 | options.0 as u64 }
    }

    /// Returns the options, if the entry belongs to the socket.
    const fn of(&self, cookie: u64) -> Option<SocketOptions> {
        let is_its =
            cookie != 0 && self.cookie == cookie && self.options >> 32 == cookie << 32 >> 32;
        if is_its { Some(SocketOptions::of(self.options as u16)) } else { None }
    }
}

/// Connections that share a slot of their table, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Connections(pub [Connection; OF_A_ROW]);

impl Connections {
    /// Returns the slot of a socket with this local port. Each port has a part of the table,
    /// which it shares with few other ports. So many connections of one port do not replace
    /// those of another.
    #[inline(always)]
    pub const fn slot(cookie: u64, port: u16) -> u32 {
        let hash = (cookie as u32 ^ (cookie >> 32) as u32).wrapping_mul(PHI);
        port as u32 % PARTS * OF_A_PART + (hash >> (u32::BITS - OF_A_PART.ilog2()))
    }

    /// Returns the options of a socket, if it is among these connections.
    pub fn of(&self, cookie: u64) -> Option<SocketOptions> {
        self.0.iter().find_map(|connection| connection.of(cookie))
    }
}

/// The options of closed connections of a port, of which TIME-WAIT minisocks may be left. They
/// are kept in addition to [`Connection`], because a busy port has more of them than fit in
/// that table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Closed {
    /// See [`key`](Self::key); 0 in a slot that was never used.
    pub key: u64,
    /// When the first of them closed since the slot belongs to this port, in seconds of
    /// `CLOCK_BOOTTIME`.
    pub since: u32,
    /// Zero.
    pub reserved: u32,
    /// When the last of them with each combination of options closed, by
    /// [`SocketOptions::number`]; 0 if there was none.
    pub last: [u32; SocketOptions::ALL],
}

impl Closed {
    /// Returns the key of a port in the network namespace with this inode.
    #[inline(always)]
    pub const fn key(netns_inode: u32, port: u16) -> u64 {
        (netns_inode as u64) << 16 | port as u64
    }

    /// Returns the slot of the key. No two ports of one namespace share a slot.
    #[inline(always)]
    pub const fn slot(key: u64) -> u32 {
        (key as u16 as u32 ^ ((key >> 16) as u32).wrapping_mul(PHI) >> 16) % CLOSED
    }

    /// Returns the options of all connections of the port that may be left, at this second, or
    /// `None` if they differ or not all were seen.
    pub fn options(&self, key: u64, now: u32) -> Option<SocketOptions> {
        if self.key != key || now.saturating_sub(self.since) < OLDEST_CLOSED {
            return None;
        }
        let is_left = |last: u32| last != 0 && now.saturating_sub(last) <= OLDEST_CLOSED;
        let mut left = (0u16..).zip(self.last).filter(|&(_, last)| is_left(last));
        let (number, _) = left.next()?;
        if left.next().is_some() { None } else { Some(SocketOptions(number)) }
    }
}

const _: () = assert!(size_of::<Connections>() == 64);
const _: () = assert!(size_of::<Closed>() == 48);
const _: () = assert!(OF_A_PART.is_power_of_two() && CLOSED.is_power_of_two());
const _: () = assert!(SocketOptions::MASK as usize + 1 == SocketOptions::ALL);

#[cfg(test)]
mod tests {
    use super::*;

    const REUSED: SocketOptions = SocketOptions(flag::REUSEADDR);
    const PLAIN: SocketOptions = SocketOptions(0);

    #[test]
    fn an_entry_is_that_of_one_socket() {
        let entry = Connection::new(0x5_0000_0007, REUSED);
        assert_eq!(entry.of(0x5_0000_0007), Some(REUSED));
        assert_eq!(entry.of(0x7), None);
        assert_eq!(Connection::zeroed().of(0), None);
        // Half of another one.
        let other = Connection { options: Connection::new(0x107, PLAIN).options, ..entry };
        assert_eq!(other.of(0x5_0000_0007), None);
    }

    #[test]
    fn ports_do_not_take_each_others_slots() {
        let part = |port| Connections::slot(77, port) / OF_A_PART;
        assert_ne!(part(8080), part(8081));
        assert_eq!(part(8080), Connections::slot(4_000_000, 8080) / OF_A_PART);
        assert!((0..=u16::MAX).all(|port| Connections::slot(9, port) < CONNECTIONS));
    }

    #[test]
    fn the_connections_of_a_port_are_spread_evenly() {
        // Two processors, and sockets of which every third is on the port.
        let cookies = (0..64u64).flat_map(|at| [3 * at + 4096, 3 * at + 12_288]);
        let mut rows = [0; OF_A_PART as usize];
        for cookie in cookies {
            rows[(Connections::slot(cookie, 80) % OF_A_PART) as usize] += 1;
        }
        assert!(rows.iter().all(|&used| used <= OF_A_ROW), "{rows:?}");
    }

    #[test]
    fn one_among_others_is_found() {
        let mut row = Connections::zeroed();
        row.0[2] = Connection::new(5, REUSED);
        assert_eq!(row.of(5), Some(REUSED));
        assert_eq!(row.of(6), None);
    }

    #[test]
    fn closed_connections_are_known_if_all_were_seen_and_agree() {
        let key = Closed::key(4_026_531_840, 80);
        let mut closed = Closed { key, since: 1000, ..Closed::zeroed() };
        closed.last[REUSED.number()] = 1500;
        assert_eq!(closed.options(key, 1501), Some(REUSED));
        assert_eq!(closed.options(Closed::key(4_026_531_840, 81), 1501), None);
        // Older ones may be left.
        assert_eq!(closed.options(key, 1299), None);
        // None is left.
        assert_eq!(closed.options(key, 1801), None);
        closed.last[PLAIN.number()] = 1300;
        assert_eq!(closed.options(key, 1501), None);
        assert_eq!(closed.options(key, 1601), Some(REUSED));
    }
}
