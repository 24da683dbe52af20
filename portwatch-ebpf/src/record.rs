//! The record of who holds which port: written when the kernel has agreed to a
//! bind or listen, read by user space only when a later one is refused. It
//! answers at once who the holder is, and also when the holder is gone.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portwatch_common::{Attempt, Port};

use crate::{
    maps::{OWNERS, PORTS, SCRATCH},
    task,
};

/// The current task holds the port of `attempt` now.
#[inline(always)]
pub fn agreed(attempt: &Attempt) {
    // Without a cookie nothing could find it, and port 0 is not the port that
    // the kernel chose: listen comes later and knows it.
    if attempt.socket_cookie == 0 || attempt.port == 0 {
        return;
    }
    let Some(owner) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the slot is this CPU's own; a program of this kind does not run
    // inside another on one CPU.
    unsafe {
        (*owner).at_ns = bpf_ktime_get_boot_ns();
        (*owner).left_ns = 0;
        (*owner).flags = attempt.flags;
        task::describe_owner(owner);
    }
    // SAFETY: as above, and every field but the rest of `cmdline` is written;
    // that rest is what the slot had before, and nobody reads it.
    let owner = unsafe { &*owner };
    let _ = OWNERS.insert(attempt.socket_cookie, owner, 0);
    let _ = PORTS.insert(port(attempt), attempt.socket_cookie, 0);
}

/// A listener with this cookie has closed.
#[inline(always)]
pub fn left(cookie: u64) {
    if let Some(owner) = OWNERS.get_ptr_mut(cookie) {
        // SAFETY: an aligned store into the map's value, which stays valid
        // while this program runs.
        unsafe { (*owner).left_ns = bpf_ktime_get_boot_ns() };
    }
}

fn port(attempt: &Attempt) -> Port {
    Port {
        netns_cookie: attempt.netns_cookie,
        port: attempt.port,
        protocol: attempt.protocol,
        reserved: 0,
    }
}
