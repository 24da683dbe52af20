//! The owner record. It is written when a bind or listen succeeds, and read by user space only
//! when a later one fails. It names the holder at once, also after the holder has exited.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use portwatch_common::{Attempt, Owner, Port, PortUse, flag, stage};

use crate::{
    maps::{CONNECTED, OWNERS, PORTS},
    task,
};

/// Records the current task as the holder of `attempt`'s port.
#[inline(always)]
pub fn agreed(attempt: &Attempt) {
    // Without a cookie no lookup finds the entry, and port 0 is not the port that the kernel
    // chose. The following listen has the chosen port.
    let cookie = attempt.socket_cookie;
    if cookie == 0 || attempt.port == 0 {
        return;
    }
    let Some(owner) = OWNERS.get_ptr_mut(Owner::slot(cookie)) else {
        return;
    };
    let port = Port {
        netns_cookie: attempt.netns_cookie,
        port: attempt.port,
        protocol: attempt.protocol,
        reserved: 0,
    };
    // Two processes may share a socket, or a process may call execve between bind and listen.
    let again = is_open(owner, cookie);
    // SAFETY: aligned accesses to the map's value, which stays valid while this program runs.
    // Another program may write to it at the same time. A program that then finds the other's
    // cookie does not seal the mixed entry.
    unsafe {
        (*owner).seal = 0;
        compiler_fence(Ordering::SeqCst);
        (*owner).cookie = cookie;
        (*owner).at_ns = bpf_ktime_get_boot_ns();
        (*owner).left_ns = 0;
        (*owner).port = port;
        (*owner).address = attempt.address;
        (*owner).family = attempt.family;
        // A bind to port 0 does not reach this line.
        let asked = if attempt.stage == stage::BIND {
            flag::PORT_ASKED | flag::PORT_ASKED_KNOWN
        } else {
            0
        };
        (*owner).flags = attempt.flags | asked;
        task::describe_owner(owner);
        compiler_fence(Ordering::SeqCst);
        if core::ptr::read_volatile(&raw const (*owner).cookie) == cookie {
            (*owner).seal = cookie;
        } else {
            (*owner).cookie = 0;
        }
    }
    use_port(port, cookie, again);
}

/// Counts one more socket on a port, unless it was counted before.
#[inline(always)]
fn use_port(port: Port, cookie: u64, again: bool) {
    let Some(in_use) = PORTS.get_ptr_mut(port.slot()) else {
        return;
    };
    // If two processors bind to one port at the same time, one socket too few may be counted.
    // Then a socket that does not block is not listed. The blocking socket is found in any
    // case.
    // SAFETY: aligned accesses to the map's value, which stays valid while this program runs.
    unsafe {
        if (*in_use).port != port {
            *in_use = PortUse::first(port, cookie, &*in_use);
            return;
        }
        if (*in_use).last_cookie != cookie {
            (*in_use).previous_cookie = (*in_use).last_cookie;
            (*in_use).last_cookie = cookie;
        }
        if !again {
            (*in_use).bound = (*in_use).bound.saturating_add(1);
        }
    }
}

/// Returns whether the new listener's entry is up to date: the process that listens has also
/// bound the socket, as nearly always. Its options may have changed since then.
#[inline(always)]
pub fn is_known(cookie: u64, flags: u16) -> bool {
    let Some(owner) = OWNERS.get_ptr_mut(Owner::slot(cookie)) else {
        return false;
    };
    // SAFETY: aligned loads from the map's value.
    let known = is_open(owner, cookie) && unsafe { task::is_current(owner) };
    if known {
        // SAFETY: as in `agreed`.
        unsafe { (*owner).flags = flags };
    }
    known
}

/// Records that the listener with this cookie was closed.
#[inline(always)]
pub fn left(cookie: u64) {
    let Some(owner) = OWNERS.get_ptr_mut(Owner::slot(cookie)) else {
        return;
    };
    if cookie == 0 || !is_open(owner, cookie) {
        return;
    }
    // SAFETY: as in `agreed`.
    let port = unsafe {
        (*owner).left_ns = bpf_ktime_get_boot_ns();
        (*owner).port
    };
    if let Some(in_use) = PORTS.get_ptr_mut(port.slot()) {
        // SAFETY: as in `use_port`.
        unsafe {
            if (*in_use).port == port {
                (*in_use).bound = (*in_use).bound.saturating_sub(1);
            }
        }
    }
}

/// Records that a TCP connection with this local port has started.
#[inline(always)]
pub fn connected(port: u16, outgoing: bool) {
    if let Some(seen) = CONNECTED.get_ptr_mut(u32::from(port)) {
        // SAFETY: one byte of the map's own. It is read first, because all processors can share
        // a cache line that is only read.
        unsafe {
            let byte = if outgoing { &raw mut (*seen).outgoing } else { &raw mut (*seen).accepted };
            if *byte == 0 {
                *byte = 1;
            }
        }
    }
}

/// Returns whether the slot belongs to the socket, and the socket is not known to be closed.
#[inline(always)]
fn is_open(owner: *const Owner, cookie: u64) -> bool {
    // SAFETY: aligned loads from a map's value, which stays valid while the program runs.
    unsafe { (*owner).cookie == cookie && (*owner).left_ns == 0 }
}
