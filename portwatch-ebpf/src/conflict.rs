//! Finds the blocking socket. The kernel's own conflict check compares it under the lock of the
//! port's bucket, so what is read here is true at that instant.
//!
//! The check iterates over the sockets on the port and ends at the first conflict. So the
//! blocking socket is the last one for which one of these functions returned true before
//! `get_port` failed.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use portwatch_common::{Culprit, flag};

use crate::{
    layout::{Pointer, load},
    maps::{CULPRITS, Met},
    sock,
    task::now,
};

/// `TCP_TIME_WAIT` (include/net/tcp_states.h).
const TCP_TIME_WAIT: u8 = 6;

/// A C `bool` is the lowest byte of its register.
#[inline(always)]
pub fn is_true(register: u64) -> bool {
    register & 0xff != 0
}

/// Keeps `other`, with which the socket that is being bound conflicts.
#[inline(always)]
pub fn met<P: Pointer>(sk: P, other: P) {
    let family = load!(other, sk_family, u16);
    let state = load!(other, sk_state, u8);
    let mut culprit = Culprit {
        socket_cookie: sock::cookie(other),
        inode: 0,
        address: sock::address(other, family),
        uid: 0,
        device: load!(other, sk_bound_dev_if, u32),
        family,
        flags: sock::options(other) | flag::DEVICE_KNOWN,
        state,
        reserved: [0; 3],
    };
    // In TIME-WAIT it is an `inet_timewait_sock`, which shares only `sock_common` with `struct
    // sock`.
    if state != TCP_TIME_WAIT {
        culprit.uid = load!(other, sk_uid, u32);
        culprit.flags |= flag::UID_KNOWN;
        let (inode, kernels_own) = sock::file(other);
        culprit.inode = inode;
        if kernels_own {
            culprit.flags |= flag::KERNELS_OWN;
        }
    }
    let met = Met {
        by: sk.address() as u64,
        cookie: sock::cookie(sk),
        at_ns: now(),
        port: load!(other, sk_num, u16),
        reserved: [0; 6],
        culprit,
    };
    // Without an entry the event names no blocking socket, and user space determines it.
    let _ = CULPRITS.insert(bpf_get_current_pid_tgid(), met, 0);
}
