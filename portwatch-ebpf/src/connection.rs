//! Records the options of TCP connections when their state changes. An accepted connection has
//! the options of its listener, and TIME-WAIT has the options of the socket at that state
//! change.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portwatch_common::{Closed, Connection, Connections, SocketOptions};

use crate::{
    layout::load,
    maps::{CLOSED, CONNECTIONS},
    sock::{
        self, Net, Sock, TCP_CLOSE, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
        TCP_LAST_ACK,
    },
};

/// States in which a socket has just been connected, or in which its program may have closed it
/// and can no longer change its options.
const READ_AT: u32 = 1 << TCP_ESTABLISHED
    | 1 << TCP_FIN_WAIT1
    | 1 << TCP_FIN_WAIT2
    | 1 << TCP_LAST_ACK
    | 1 << TCP_CLOSING;
/// States from which a socket becomes a TIME-WAIT minisock. The change to CLOSE that follows is
/// that of the socket that the minisock replaces (`tcp_time_wait`).
const LEFT_FROM: u32 = 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSING;

/// Records the options of a socket whose state changes.
#[inline(always)]
pub fn changed(sk: *const Sock, old: i32, new: i32) {
    let leaves = new == i32::from(TCP_CLOSE) && contains(LEFT_FROM, old);
    if !leaves && !contains(READ_AT, new) {
        return;
    }
    let port = sock::local_port(sk);
    let options = SocketOptions::of(sock::options(sk));
    // This runs before the minisock is created, which takes over the options.
    let cookie = sock::cookie(sk);
    if cookie != 0 {
        keep(port, Connection::new(cookie, options));
    }
    if leaves && port != 0 {
        let (netns_inode, _) = sock::netns(load!(sk, sk_net, *const Net));
        close(Closed::key(netns_inode, port), options);
    }
}

#[inline(always)]
fn contains(states: u32, state: i32) -> bool {
    states >> (state & 31) & 1 != 0
}

#[inline(always)]
fn keep(port: u16, connection: Connection) {
    let Some(row) = CONNECTIONS.get_ptr_mut(Connections::slot(connection.cookie, port)) else {
        return;
    };
    // SAFETY: aligned accesses to the map's value, which stays valid while this program runs.
    // Another program may write at the same time. Then entries are lost, or belong to no
    // socket.
    unsafe {
        let Connections([first, second, third, fourth]) = &mut *row;
        for entry in [&mut *first, &mut *second, &mut *third, &mut *fourth] {
            if entry.cookie == connection.cookie {
                if entry.options != connection.options {
                    entry.options = connection.options;
                }
                return;
            }
        }
        *fourth = *third;
        *third = *second;
        *second = *first;
        *first = connection;
    }
}

#[inline(always)]
fn close(key: u64, options: SocketOptions) {
    let Some(slot) = CLOSED.get_ptr_mut(Closed::slot(key)) else {
        return;
    };
    // SAFETY: `bpf_ktime_get_boot_ns` has no requirements.
    let now = (unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000) as u32;
    // SAFETY: as in `keep`. What two processors write at the same time may be lost. The agent
    // does not use an entry until some time after its first write, and the same values are
    // written repeatedly.
    unsafe {
        if (*slot).key != key {
            (*slot).key = 0;
            (*slot).last = [0; SocketOptions::ALL];
            (*slot).since = now;
            (*slot).key = key;
        }
        let last =
            (&raw mut (*slot).last).cast::<u32>().add(options.number() & (SocketOptions::ALL - 1));
        if *last != now {
            *last = now;
        }
    }
}
