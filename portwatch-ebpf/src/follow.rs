//! Outcomes of failed binds. A failing process and its descendants are followed until they
//! exit, and the port is awaited. While nothing is followed, each program ends after one load.
//!
//! User space removes entries from both tables. A process that does not fit in the table is not
//! followed. The record of each failed bind says whether its process is followed.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid},
};
use portwatch_common::{
    Attempt, Awaited, AwaitedPort, BINDS, BINDS_OF_PORT, FORKS, Followed, Port, Tenant, Watched,
    followed, followed_flag,
};

use crate::{
    layout::load,
    maps::{AWAITED, FAILURES, FOLLOWING, WATCHED, count_unfollowed},
    task,
};

/// `SIGNAL_GROUP_EXIT` (include/linux/sched/signal.h).
const SIGNAL_GROUP_EXIT: u32 = 4;

/// Whether processes are followed at all. Set by user space before load.
#[unsafe(no_mangle)]
static FOLLOW: u32 = 0;

/// Returns whether any process is followed now.
#[inline(always)]
pub fn is_active() -> bool {
    // SAFETY: the static is a plain integer; volatile keeps the compiler from folding in the
    // value that it was built with. The map's value is a plain integer as well.
    unsafe {
        core::ptr::read_volatile(&raw const FOLLOW) != 0
            && FOLLOWING
                .get_ptr(0)
                .is_some_and(|following| core::ptr::read_volatile(following) != 0)
    }
}

/// Follows the current process, whose `attempt` failed. Returns [`Watched::own_ns`], or 0 if
/// it is not followed.
#[inline(always)]
pub fn begin(attempt: &Attempt, tenant: &Tenant, now: u64) -> u64 {
    // SAFETY: as above.
    if unsafe { core::ptr::read_volatile(&raw const FOLLOW) } == 0 {
        return 0;
    }
    let own_ns = watch(tenant, now);
    if own_ns == 0 || !await_port(attempt, tenant, now) {
        return 0;
    }
    // This is written after both tables, so that a program that sees this value finds the
    // entries.
    if let Some(following) = FOLLOWING.get_ptr_mut(0) {
        // SAFETY: a plain store to the map's value.
        unsafe { core::ptr::write_volatile(following, 1) };
    }
    own_ns
}

#[inline(always)]
fn watch(tenant: &Tenant, now: u64) -> u64 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let started_ns = task::started_ns();
    if let Some(watched) = WATCHED.get_ptr_mut(pid) {
        // SAFETY: aligned accesses to the map's value. Another thread of the process may write
        // equally valid values at the same time.
        unsafe {
            // Where the start is unknown, the exit of an earlier process with this pid has
            // removed its entry.
            if (*watched).started_ns == started_ns || started_ns == 0 {
                if (*watched).own_ns == 0 {
                    (*watched).own_ns = now;
                }
                (*watched).last_ns = now;
                (*watched).tenant = *tenant;
                (*watched).binds_left = BINDS;
                return (*watched).own_ns;
            }
        }
    }
    let new = Watched {
        own_ns: now,
        root_ns: 0,
        last_ns: now,
        started_ns,
        tenant: *tenant,
        root: 0,
        binds_left: BINDS,
        forks_left: FORKS,
        flags: 0,
        reserved: 0,
    };
    if WATCHED.insert(pid, new, 0).is_ok() { now } else { 0 }
}

#[inline(always)]
fn await_port(attempt: &Attempt, tenant: &Tenant, now: u64) -> bool {
    let awaited =
        Awaited { last_ns: now, tenant: *tenant, binds_left: BINDS_OF_PORT, reserved: [0; 6] };
    AWAITED.insert(port_of(attempt, tenant.user), awaited, 0).is_ok()
}

#[inline(always)]
fn port_of(attempt: &Attempt, user: u32) -> AwaitedPort {
    let port = Port {
        netns_cookie: attempt.netns_cookie,
        port: attempt.port,
        protocol: attempt.protocol,
        reserved: 0,
    };
    AwaitedPort { port, user, reserved: 0 }
}

/// Sends the current process's successful `attempt`, if the process or its port is in a table.
/// It is called only while [`is_active`].
#[inline(always)]
pub fn bound(attempt: &Attempt) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let watched = WATCHED.get_ptr_mut(pid).unwrap_or(core::ptr::null_mut());
    // Clients bind to port 0 all the time.
    if attempt.port == 0 && watched.is_null() {
        return;
    }
    let user = task::tenant().user;
    let awaited = AWAITED.get_ptr_mut(port_of(attempt, user)).unwrap_or(core::ptr::null_mut());
    // SAFETY: aligned accesses to the values of maps, which stay valid while this program runs.
    // If two processors decrement one number at the same time, it may be decremented only once.
    unsafe {
        if !awaited.is_null() {
            if (*awaited).binds_left == 0 {
                return;
            }
            (*awaited).binds_left -= 1;
        } else {
            // It is another port, bound by a followed process.
            if watched.is_null() || attempt.port == 0 || (*watched).binds_left == 0 {
                return;
            }
            (*watched).binds_left -= 1;
        }
    }
    send(followed::BOUND, pid, |record| {
        // SAFETY: as above.
        unsafe {
            if !watched.is_null() {
                record.own_ns = (*watched).own_ns;
                record.root_ns = (*watched).root_ns;
                record.root = (*watched).root;
                record.tenant = (*watched).tenant;
            } else if !awaited.is_null() {
                record.tenant = (*awaited).tenant;
            }
        }
        record.netns_cookie = attempt.netns_cookie;
        record.netns_inode = attempt.netns_inode;
        record.address = attempt.address;
        record.port = attempt.port;
        record.family = attempt.family;
        record.protocol = attempt.protocol;
        record.stage = attempt.stage;
        record.parent = task::parent();
    });
}

/// Follows a process that the current process, which is followed, has started.
#[inline(always)]
pub fn forked(parent: *const task_struct, child: *const task_struct) {
    let (pid, number) = (load!(parent, task_tgid, u32), load!(child, task_tgid, u32));
    if pid == number {
        // It is a thread.
        return;
    }
    let Some(watched) = WATCHED.get_ptr_mut(pid) else {
        return;
    };
    let started_ns = load!(child, task_start_boottime, u64);
    // SAFETY: as in `bound`.
    let new = unsafe {
        if (*watched).forks_left == 0 {
            (*watched).flags |= followed_flag::MORE_FORKS;
            return;
        }
        // The child gets a part of what is left, so the sum is bounded however the tree grows.
        let given = ((*watched).forks_left - 1) / 8;
        (*watched).forks_left -= given + 1;
        // A process whose own bind has failed is the root of the processes that it starts.
        let is_root = (*watched).own_ns != 0;
        Watched {
            own_ns: 0,
            root_ns: if is_root { (*watched).own_ns } else { (*watched).root_ns },
            last_ns: task::now(),
            started_ns,
            tenant: (*watched).tenant,
            root: if is_root { pid } else { (*watched).root },
            binds_left: BINDS,
            forks_left: given,
            flags: 0,
            reserved: 0,
        }
    };
    if WATCHED.insert(number, new, 0).is_err() {
        // SAFETY: as in `bound`.
        unsafe { (*watched).flags |= followed_flag::MORE_FORKS };
        return;
    }
    send(followed::FORKED, pid, |record| {
        record.root_ns = new.root_ns;
        record.root = new.root;
        record.tenant = new.tenant;
        record.value = number;
    });
}

/// Sends the exit of a followed process, if this is its last thread.
#[inline(always)]
pub fn exited(task: *const task_struct) {
    let pid = load!(task, task_tgid, u32);
    let Some(watched) = WATCHED.get_ptr(pid) else {
        return;
    };
    let signal = load!(task, task_signal, *const u8);
    // If two threads exit at the same time, both may see that no thread is left.
    if load!(signal, signal_live, i32) > 0 {
        return;
    }
    // As in `wait_task_zombie` (kernel/exit.c).
    let code = if load!(signal, signal_flags, u32) & SIGNAL_GROUP_EXIT != 0 {
        load!(signal, signal_exit_code, u32)
    } else {
        let leader = load!(task, task_group_leader, *const task_struct);
        load!(leader, task_exit_code, u32)
    };
    // SAFETY: as in `bound`.
    let Watched { own_ns, root_ns, root, tenant, flags, .. } = unsafe { *watched };
    // Only one of the two threads finds the entry.
    if WATCHED.remove(pid).is_ok() {
        send(followed::EXITED, pid, |record| {
            record.own_ns = own_ns;
            record.root_ns = root_ns;
            record.root = root;
            record.tenant = tenant;
            record.flags = flags;
            record.value = code;
        });
    }
}

/// Sends a record with the time and the current task. `fill` writes the other fields. The
/// record is written in the ring, because it does not fit on a program's stack.
#[inline(always)]
fn send(kind: u8, pid: u32, fill: impl FnOnce(&mut Followed)) {
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    let Some(mut entry) = FAILURES.reserve::<Followed>(0) else {
        count_unfollowed();
        return;
    };
    // SAFETY: the reservation is as large as the record, and each field of it is written here.
    // The helper has no preconditions.
    unsafe {
        let record = &mut *entry.as_mut_ptr();
        record.at_ns = task::now();
        record.own_ns = 0;
        record.root_ns = 0;
        record.tenant = Tenant { cgroup_id: 0, user: 0, reserved: 0 };
        record.cgroup_id = bpf_get_current_cgroup_id();
        record.netns_cookie = 0;
        record.address = [0; 16];
        record.netns_inode = 0;
        record.pid = pid;
        record.root = 0;
        record.value = 0;
        record.flags = 0;
        record.port = 0;
        record.family = 0;
        record.protocol = 0;
        record.stage = 0;
        record.kind = kind;
        record.parent = 0;
        record.comm = comm;
        fill(record);
    }
    entry.submit(0);
}
