//! The owner record: which process bound which port. Its tables are arrays, and each key has
//! one slot, so a write costs only the stores. A newer entry replaces an older one in the same
//! slot.

use bytemuck::{Pod, Zeroable};

use crate::COMM_LEN;

/// How many sockets have a recorded owner, a power of two: 3.8 MiB of kernel memory.
pub const OWNERS: u32 = 32_768;
/// How many processes have recorded arguments, a power of two: 1.2 MiB.
pub const ARGUMENTS: u32 = 8_192;
/// How many ports are recorded, a power of two: 2.5 MiB.
pub const PORTS: u32 = 65_536;
/// The number of all port numbers.
pub const PORT_NUMBERS: u32 = 65_536;
/// The words of a set of ports. Each port has one bit.
pub const PORT_WORDS: u32 = PORT_NUMBERS / u64::BITS;

/// Returns the word of a port in a set of ports, and its bit in that word.
#[must_use]
pub const fn port_bit(port: u16) -> (u32, u64) {
    (port as u32 / u64::BITS, 1 << (port as u32 % u64::BITS))
}

/// The process that bound a socket, or listens on it. The entry is written after the call has
/// succeeded. It is kept after the socket was closed, until another socket uses the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Owner {
    /// The socket's cookie. It is written before the other fields, and is 0 in a slot that was
    /// never used.
    pub cookie: u64,
    /// The time of the call, in nanoseconds of `CLOCK_BOOTTIME`; 0 if it was before the agent's
    /// start.
    pub at_ns: u64,
    /// When a listener was closed; 0 while it is open, and for other sockets.
    pub left_ns: u64,
    /// Start of the process, in nanoseconds of `CLOCK_BOOTTIME`; 0 where unknown.
    pub started_ns: u64,
    /// The process's cgroup2 id.
    pub cgroup_id: u64,
    /// The port that it has bound.
    pub port: Port,
    /// The address that it has bound, like [`Attempt::address`](crate::Attempt::address).
    pub address: [u8; 16],
    /// `AF_INET` or `AF_INET6`; 0 where the address is unknown.
    pub family: u16,
    /// The socket's options at that time, see [`flag`](crate::flag).
    pub flags: u16,
    /// The process.
    pub pid: u32,
    /// Its parent; 0 where unknown.
    pub ppid: u32,
    /// Its real user id.
    pub uid: u32,
    /// The program that it ran at that time (the lower half of `self_exec_id`, which each
    /// `execve(2)` increases); 0 where unknown.
    pub program: u32,
    /// Zero.
    pub reserved: u32,
    /// The thread's name, NUL padded.
    pub comm: [u8; COMM_LEN],
    /// The cookie again. It is zeroed first, and written last.
    pub seal: u64,
}

impl Owner {
    /// Returns the slot of a socket's owner. Each processor assigns cookies in ascending order
    /// from its own blocks (`gen_cookie_next`). A block fills consecutive slots, and starts at
    /// another slot in each round of the table, so that the blocks of many processors do not
    /// collide.
    #[inline(always)]
    pub const fn slot(cookie: u64) -> u32 {
        /// `COOKIE_LOCAL_BATCH` (include/linux/cookie.h).
        const BLOCK: u32 = 4096;
        let cookie = cookie as u32;
        let round = (cookie / OWNERS).wrapping_mul(PHI) >> (u32::BITS - BLOCK.ilog2());
        (cookie % OWNERS) ^ round
    }

    /// Returns whether the entry belongs to the socket and is complete. While it is written,
    /// `cookie` and `seal` differ.
    pub const fn is_of(&self, cookie: u64) -> bool {
        self.cookie == cookie && self.seal == cookie && cookie != 0
    }
}

/// 2^32 / the golden ratio: the products of close numbers are far apart.
pub(crate) const PHI: u32 = 0x9e37_79b9;

/// The most bytes of a command line that are recorded.
pub const RECORD_CMDLINE_LEN: usize = 128;

/// The arguments of a process that has bound a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Arguments {
    /// Like [`Owner::started_ns`].
    pub started_ns: u64,
    /// The process; 0 while it is being written.
    pub pid: u32,
    /// Like [`Owner::program`].
    pub program: u32,
    /// Valid bytes of `cmdline`.
    pub len: u16,
    /// Zero.
    pub reserved: [u8; 6],
    /// The beginning of the arguments, each ended by a NUL.
    pub cmdline: [u8; RECORD_CMDLINE_LEN],
}

impl Arguments {
    /// Returns the slot of a process's arguments.
    #[inline(always)]
    pub const fn slot(pid: u32) -> u32 {
        pid % ARGUMENTS
    }

    /// Returns whether these are the arguments of `owner`'s process at that time.
    pub const fn are_of(&self, owner: &Owner) -> bool {
        // Entries that are older than the agent come from /proc: in ticks of 10 ms, and without
        // `self_exec_id`.
        const TICK_NS: u64 = 10_000_000;
        let known = if owner.program == 0 {
            self.started_ns.abs_diff(owner.started_ns) < TICK_NS
        } else {
            self.started_ns == owner.started_ns && self.program == owner.program
        };
        known && self.pid == owner.pid
    }
}

/// A port of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// The namespace's cookie.
    pub netns_cookie: u64,
    /// The port in host byte order.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Zero.
    pub reserved: u32,
}

impl Port {
    /// Returns the slot of the port. No two ports of one namespace and protocol share a slot.
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        let others = self.netns_cookie as u32 ^ (self.protocol as u32) << 16;
        (self.port as u32 ^ others.wrapping_mul(PHI) >> 16) % PORTS
    }
}

/// What is recorded about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortUse {
    /// The port.
    pub port: Port,
    /// The cookie of the last socket that was bound to it.
    pub last_cookie: u64,
    /// The cookie of the socket before that; 0 if there was none.
    pub previous_cookie: u64,
    /// The number of sockets that were bound to it and are not known to be closed: an upper
    /// limit of the number that exist.
    pub bound: u32,
    /// Zero.
    pub reserved: u32,
}

impl PortUse {
    /// More than can exist. A port that takes over another port's slot may have older sockets
    /// that were not counted.
    const MANY: u32 = 1 << 31;

    /// Returns the entry for a port's first socket in a slot that contained `before`.
    #[inline(always)]
    pub const fn first(port: Port, cookie: u64, before: &Self) -> Self {
        let bound = if before.last_cookie == 0 { 1 } else { Self::MANY };
        Self { port, last_cookie: cookie, previous_cookie: 0, bound, reserved: 0 }
    }
}

/// TCP connections that a port has had, in any namespace. Each byte is 0 or 1 and is written
/// separately, so that two processors cannot undo each other's writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Connected {
    /// Connections that this end opened: the port was their source port.
    pub outgoing: u8,
    /// Connections that the other end opened, and that a listener accepted.
    pub accepted: u8,
    /// Connections that are older than the agent.
    pub older: u8,
}

const _: () = assert!(size_of::<Owner>() == 120);
const _: () = assert!(size_of::<Arguments>() == 24 + RECORD_CMDLINE_LEN);
const _: () = assert!(size_of::<Port>() == 16);
const _: () = assert!(size_of::<PortUse>() == 40);
const _: () = assert!(OWNERS.is_power_of_two() && ARGUMENTS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    fn port(netns_cookie: u64, port: u16, protocol: u16) -> Port {
        Port { netns_cookie, port, protocol, reserved: 0 }
    }

    #[test]
    fn ports_of_a_namespace_do_not_meet_and_namespaces_are_spread() {
        let mut used = [false; PORTS as usize];
        for number in 0..=u16::MAX {
            let slot = port(7, number, 6).slot() as usize;
            assert!(!used[slot], "{number} shares a slot");
            used[slot] = true;
        }
        let mut slots = [0; 128];
        for (netns, slot) in slots.iter_mut().enumerate() {
            let protocol = if netns % 2 == 0 { 6 } else { 17 };
            *slot = port(netns as u64 / 2, 8080, protocol).slot();
        }
        slots.sort_unstable();
        assert!(slots.windows(2).all(|pair| pair[0] != pair[1]), "{slots:?}");
    }

    #[test]
    fn the_first_sockets_of_many_processors_do_not_meet() {
        // 64 processors that have handed out 20 cookies each.
        let mut used = [false; OWNERS as usize];
        let cookies = (0..64u64).flat_map(|block| (1..=20).map(move |at| block * 4096 + at));
        let met = cookies
            .filter(|&cookie| core::mem::replace(&mut used[Owner::slot(cookie) as usize], true));
        assert!(met.count() < 64);
    }

    #[test]
    fn what_one_processor_hands_out_fills_the_table() {
        let mut used = [false; OWNERS as usize];
        (OWNERS..2 * OWNERS)
            .map(u64::from)
            .for_each(|cookie| used[Owner::slot(cookie) as usize] = true);
        assert!(used.iter().all(|&used| used));
    }

    #[test]
    fn a_record_that_is_being_written_is_nobodys() {
        let whole = Owner { cookie: 9, seal: 9, ..Owner::zeroed() };
        assert!(whole.is_of(9));
        assert!(!whole.is_of(9 + u64::from(OWNERS)));
        assert!(!Owner { cookie: 9, ..Owner::zeroed() }.is_of(9));
        assert!(!Owner { seal: 9, ..Owner::zeroed() }.is_of(9));
        assert!(!Owner::zeroed().is_of(0));
    }

    #[test]
    fn a_slot_that_was_another_ports_may_have_been_this_ones_before() {
        let (one, other) = (port(1, 80, 6), port(2, 80, 6));
        let first = PortUse::first(one, 5, &PortUse::zeroed());
        assert_eq!((first.bound, first.last_cookie), (1, 5));
        assert!(PortUse::first(other, 6, &first).bound > 1 << 30);
    }

    #[test]
    fn arguments_are_those_of_one_program_of_one_process() {
        let kept = Arguments { started_ns: 5, pid: 3, program: 2, ..Arguments::zeroed() };
        let owner = Owner { started_ns: 5, pid: 3, program: 2, ..Owner::zeroed() };
        assert!(kept.are_of(&owner));
        assert!(!kept.are_of(&Owner { program: 1, ..owner }));
        assert!(!kept.are_of(&Owner { pid: 4, ..owner }));
        assert!(!kept.are_of(&Owner { started_ns: 6, ..owner }));
        // Read from /proc.
        let seeded = Owner { program: 0, started_ns: 0, ..owner };
        assert!(kept.are_of(&seeded));
        assert!(!kept.are_of(&Owner { started_ns: 20_000_000, ..seeded }));
    }
}
