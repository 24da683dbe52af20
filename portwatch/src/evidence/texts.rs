//! Visits every text in the evidence of one event.

use super::{
    Binder, Cgroup, Device, Ephemeral, Evidence, Fact, Failure, Gap, LastHolder, LeftBy, Netns,
    Pod, Process, Share, Socket, Supervisor, TimeWait, Usage, Workload,
};

/// The function that is called for each text.
type Each<'a> = &'a mut dyn FnMut(&mut String);

/// A type that contains texts, or parts with texts.
pub trait Texts {
    /// Calls `each` for every text except the command lines, which have their own type
    /// ([`Cmdline`](crate::redact::Cmdline)).
    fn texts(&mut self, each: Each<'_>);
}

/// Lists for each type the fields that contain texts, and after the semicolon all others. So a
/// new field of a type cannot be forgotten here.
macro_rules! texts {
    ($($of:ident { $($has:ident),+; $($other:ident),* })+) => {$(
        impl Texts for $of {
            fn texts(&mut self, each: Each<'_>) {
                let Self { $($has,)+ $($other: _,)* } = self;
                $($has.texts(each);)+
            }
        }
    )+};
}

texts! {
    Evidence {
        kernel, failure, process, netns, sockets, time_wait, ephemeral, last_holder,
        previous_holder, gaps;
        time, subject, connections
    }
    Failure {
        errno, device;
        stage, protocol, family, address, port, reuseaddr, reuseport, v6only, uid, cookie
    }
    Netns { name; inode, cookie, host, pid }
    Device { name; index }
    Socket {
        device, binder, holders;
        state, local, remote, inode, cookie, uid, cgroup_id, reuseaddr, reuseport, v6only,
        expires_ms, refused, origin, port_chosen_by, unheld
    }
    Binder { comm, user; pid, cmdline, alive, uid, started, bound }
    TimeWait { left_by; count, max_remaining_ms }
    LeftBy { program, unit; pid, left }
    Ephemeral { reserved, usage; low, high }
    Usage { most_by; ports, states }
    Share { process; sockets, of }
    LastHolder { process; cookie, address, reuseaddr, reuseport, bound, left }
    Gap { what, why; denied }
    Process {
        comm, exe, cwd, user, cgroup, unit, container, pod, session, session_user, tty, supervisor,
        workload;
        pid, tid, fd, ppid, ns_pid, netns, core_dumping, ended, zombie, state, sigterm,
        ancestors, cmdline, vouched_by, runtime, uid, started, unit_owner, left_over
    }
    Cgroup { path; id }
    Supervisor {
        name, restart, state, result, config;
        kind, pid, restarts, main_pid, control_pid, exit_code, exit_status, others, uid,
        loops
    }
    Workload { id, name, image, pod, published; engine }
    Pod { namespace, name; }
}

impl Texts for String {
    fn texts(&mut self, each: Each<'_>) {
        each(self);
    }
}

impl Texts for Fact {
    fn texts(&mut self, each: Each<'_>) {
        if let Self::Other(name) = self {
            each(name);
        }
    }
}

impl<T: Texts> Texts for Option<T> {
    fn texts(&mut self, each: Each<'_>) {
        self.iter_mut().for_each(|part| part.texts(each));
    }
}

impl<T: Texts> Texts for Vec<T> {
    fn texts(&mut self, each: Each<'_>) {
        self.iter_mut().for_each(|part| part.texts(each));
    }
}
