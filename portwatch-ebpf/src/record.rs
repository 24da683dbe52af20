//! The record of who holds which port: written when the kernel has agreed to a
//! bind or listen, read by user space only when a later one is refused. It
//! answers at once who the holder is, and also when the holder is gone.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portwatch_common::{Attempt, Port, PortUse};

use crate::{
    maps::{CONNECTED, OWNERS, PORTS, SCRATCH},
    task,
};

/// The current task holds the port of `attempt` now.
#[inline(always)]
pub fn agreed(attempt: &Attempt) {
    // Without a cookie nothing could find it, and port 0 is not the port that
    // the kernel chose: listen comes later and knows it.
    let cookie = attempt.socket_cookie;
    if cookie == 0 || attempt.port == 0 {
        return;
    }
    let Some(owner) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    let port = Port {
        netns_cookie: attempt.netns_cookie,
        port: attempt.port,
        protocol: attempt.protocol,
        reserved: 0,
    };
    // SAFETY: the slot is this CPU's own; a program of this kind does not run
    // inside another on one CPU.
    unsafe {
        (*owner).at_ns = bpf_ktime_get_boot_ns();
        (*owner).left_ns = 0;
        (*owner).port = port;
        (*owner).address = attempt.address;
        (*owner).family = attempt.family;
        (*owner).reserved = [0; 6];
        (*owner).flags = attempt.flags;
        task::describe_owner(owner);
    }
    // Bind and the listen that follows it are about one socket.
    let again = is_open(cookie);
    // SAFETY: as above, and every field but the rest of `cmdline` is written;
    // that rest is what the slot had before, and nobody reads it.
    let owner = unsafe { &*owner };
    let _ = OWNERS.insert(cookie, owner, 0);
    // SAFETY: the reference is not kept.
    let before = unsafe { PORTS.get(port) }.copied();
    let before =
        before.unwrap_or(PortUse { last_cookie: 0, previous_cookie: 0, bound: 0, reserved: 0 });
    // Two processors that bind to one port at once may count one socket too
    // few. Then a socket beside the one that refused is not listed; which one
    // refused is found all the same.
    let in_use = PortUse {
        last_cookie: cookie,
        previous_cookie: if before.last_cookie == cookie {
            before.previous_cookie
        } else {
            before.last_cookie
        },
        bound: if again { before.bound } else { before.bound.saturating_add(1) },
        reserved: 0,
    };
    let _ = PORTS.insert(port, in_use, 0);
}

/// A listener with this cookie has closed.
#[inline(always)]
pub fn left(cookie: u64) {
    let Some(owner) = OWNERS.get_ptr_mut(cookie) else {
        return;
    };
    // SAFETY: aligned accesses to the map's value, which stays valid while this
    // program runs.
    let port = unsafe {
        (*owner).left_ns = bpf_ktime_get_boot_ns();
        (*owner).port
    };
    if let Some(in_use) = PORTS.get_ptr_mut(port) {
        // SAFETY: as above.
        unsafe { (*in_use).bound = (*in_use).bound.saturating_sub(1) };
    }
}

/// A TCP connection has begun whose own port is this.
#[inline(always)]
pub fn connected(port: u16, outgoing: bool) {
    if let Some(seen) = CONNECTED.get_ptr_mut(u32::from(port)) {
        // SAFETY: one byte of the map's own. Read first: a line of the cache
        // that is only read can be shared by all processors.
        unsafe {
            let byte = if outgoing { &raw mut (*seen).outgoing } else { &raw mut (*seen).accepted };
            if *byte == 0 {
                *byte = 1;
            }
        }
    }
}

/// Whether the socket is on record and not known to have closed.
#[inline(always)]
fn is_open(cookie: u64) -> bool {
    // SAFETY: the reference is not kept.
    unsafe { OWNERS.get(cookie) }.is_some_and(|owner| owner.left_ns == 0)
}
