//! Fair shares of the ring. A process that fails repeatedly sends a limited number of records a
//! second. Failed binds above that are counted here, exactly, and do not fill the ring.
//!
//! Shares are checked from the narrowest to the widest: the process at one address, its crowd
//! (other processes of the same tenant at that address), the tenant (user and control group),
//! the user. A failed bind above a share is counted at the narrowest level that has a fresh entry
//! ([`SourceUse::is_fresh`]).

use core::ptr::{self, null_mut};

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, maps::PerCpuHashMap};
use portwatch_common::{Attempt, Crowd, Source, SourceUse, Tenant};

use crate::{
    maps::{CROWDS, FAILURES, FAILURES_SIZE, SOURCES, TENANTS, USERS, increment},
    task,
};

/// The time in which a share is used up. A level above its share is fresh.
const SECOND: u64 = SourceUse::FRESH_NS;
/// Do not overwrite an existing entry (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;
/// The bytes of the ring that were not read yet (include/uapi/linux/bpf.h).
const BPF_RB_AVAIL_DATA: u64 = 0;
/// The factor by which shares are reduced while the ring is half full. The rest is for those
/// who send few records.
const PRESSED: u64 = 4;

/// How many records one processor may send in a second. Set by user space before load. The
/// first one is `u64::MAX` if every failed bind is to be reported.
#[unsafe(no_mangle)]
static SENT_A_SECOND: u64 = portwatch_common::SENT_A_SECOND;
#[unsafe(no_mangle)]
static CROWD_A_SECOND: u64 = portwatch_common::CROWD_A_SECOND;
#[unsafe(no_mangle)]
static TENANT_A_SECOND: u64 = portwatch_common::TENANT_A_SECOND;
#[unsafe(no_mangle)]
static USER_A_SECOND: u64 = portwatch_common::USER_A_SECOND;

/// Reads one of the statics above.
macro_rules! share {
    ($name:ident) => {{
        // SAFETY: the static is a plain integer; volatile keeps the compiler from
        // folding in the value that it was built with.
        unsafe { ptr::read_volatile(&raw const $name) }
    }};
}

/// Returns the tenant of a failed bind that is to be sent, or `None` if it was only counted.
#[inline(always)]
pub fn admit(attempt: &Attempt, now: u64) -> Option<Tenant> {
    let most = share!(SENT_A_SECOND);
    let limited = most != u64::MAX;
    let source = Source::of(attempt, (bpf_get_current_pid_tgid() >> 32) as u32);
    let known = if limited { get(&SOURCES, &source) } else { null_mut() };
    if !known.is_null() && sent(known, now) >= most {
        count(known, now);
        return None;
    }
    let tenant = task::tenant();
    let crowd = Crowd::of(tenant, &source);
    // A user above the limit gets no new entries, because the tables are shared too.
    let user = get_or_insert(&USERS, &tenant.user, tenant, now);
    let pressed = if FAILURES.query(BPF_RB_AVAIL_DATA) > FAILURES_SIZE / 2 { PRESSED } else { 1 };
    let over = tenant.user != 0 && sent(user, now) >= share!(USER_A_SECOND) / pressed;
    let of_tenant =
        if over { get(&TENANTS, &tenant) } else { get_or_insert(&TENANTS, &tenant, tenant, now) };
    let over = over || sent(of_tenant, now) >= share!(TENANT_A_SECOND) / pressed;
    let of_crowd = if !limited || !known.is_null() {
        null_mut()
    } else if over {
        get(&CROWDS, &crowd)
    } else {
        get_or_insert(&CROWDS, &crowd, tenant, now)
    };
    if over || sent(of_crowd, now) >= share!(CROWD_A_SECOND) / pressed {
        let nearest = [known, of_crowd, of_tenant, user].into_iter().find(|used| meet(*used, now));
        return match nearest {
            Some(used) => {
                count(used, now);
                None
            }
            None => Some(tenant),
        };
    }
    send(user, now);
    send(of_tenant, now);
    send(of_crowd, now);
    if known.is_null() {
        if limited {
            let first = SourceUse { second_ns: now, sent: 1, counted: 0, last_ns: 0, tenant };
            // If the table is full, or another thread was first, the crowd counts the failed
            // bind.
            let _ = SOURCES.insert(source, first, BPF_NOEXIST);
        }
    } else {
        send(known, now);
    }
    Some(tenant)
}

#[inline(always)]
fn get<K>(map: &PerCpuHashMap<K, SourceUse>, key: &K) -> *mut SourceUse {
    map.get_ptr_mut(key).unwrap_or(null_mut())
}

/// Returns a pointer to the entry, or null if the table is full.
#[inline(always)]
fn get_or_insert<K>(
    map: &PerCpuHashMap<K, SourceUse>,
    key: &K,
    tenant: Tenant,
    now: u64,
) -> *mut SourceUse {
    let known = get(map, key);
    if !known.is_null() {
        return known;
    }
    let first = SourceUse { second_ns: now, sent: 0, counted: 0, last_ns: 0, tenant };
    let _ = map.insert(key, first, BPF_NOEXIST);
    get(map, key)
}

// The following functions use pointers to this processor's own values. User space removes only
// entries that were not used for two seconds, and a program is not entered again on the same
// processor before it has returned. Where a task is preempted between load and store, another
// program may run: a share may then be exceeded by one record. Counts are exact.

/// Returns whether failed binds can be counted here now. If the entry is not fresh, it is used
/// from now on, and the next one can.
#[inline(always)]
fn meet(used: *mut SourceUse, now: u64) -> bool {
    if used.is_null() {
        return false;
    }
    // SAFETY: see above.
    unsafe {
        let is_fresh = (*used).is_fresh(now);
        (*used).last_ns = now;
        is_fresh
    }
}

/// Returns how many records were sent in the current second, or 0 without an entry.
#[inline(always)]
fn sent(used: *mut SourceUse, now: u64) -> u64 {
    if used.is_null() {
        return 0;
    }
    // SAFETY: see above.
    unsafe { if now.wrapping_sub((*used).second_ns) >= SECOND { 0 } else { (*used).sent } }
}

/// Counts one more record as sent.
#[inline(always)]
fn send(used: *mut SourceUse, now: u64) {
    if used.is_null() {
        return;
    }
    // SAFETY: see above.
    unsafe {
        if now.wrapping_sub((*used).second_ns) >= SECOND {
            (*used).second_ns = now;
            (*used).sent = 1;
        } else {
            (*used).sent += 1;
        }
    }
}

/// Counts one more failed bind that is not sent.
#[inline(always)]
fn count(used: *mut SourceUse, now: u64) {
    // SAFETY: see above.
    unsafe {
        (*used).last_ns = now;
        increment(&raw mut (*used).counted);
    }
}
