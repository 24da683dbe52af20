//! Tracepoints, for kernels that permit no hooks on functions.

use super::{CGROUPS, Hook, Probe, STATE, Spec};

/// The facts about this hook set.
pub const SET: Spec = Spec {
    help: "Tracepoints, even if hooks on functions are permitted",
    hooks: "cgroup programs and tracepoints",
    is_tried: false,
    needs_cgroup2: true,
    probes: &[
        Probe::required("pw_bind4", Hook::CgroupBind),
        Probe::optional("pw_bind6", Hook::CgroupBind, "failed binds of IPv6 sockets"),
        Probe::optional(
            "pw_set_state",
            Hook::TpBtf("inet_sock_set_state"),
            "failed listen(2) calls",
        ),
        // It comes after the programs that record attempts: a failed call without a recorded
        // attempt is a loss.
        Probe::required("pw_sys_exit", Hook::TpBtf("sys_exit")),
        STATE,
        CGROUPS,
    ],
    more: |features| if features.preempts { &[AGAIN] } else { &[] },
    misses: &[
        "binds and listens through io_uring",
        "binds by the kernel itself",
        "SCTP and ICMP echo sockets (counted as losses)",
        "owner and bound device of IPv4 UDP sockets",
    ],
    cost: |features| match features.preempts {
        true => "20 to 60 ns on every system call, about a microsecond on a bind and its listen",
        false => "10 to 30 ns on every system call, about a microsecond on a bind and its listen",
    },
};

/// For kernels where a task can be preempted in `pw_sys_exit`.
const AGAIN: Probe = Probe::required("pw_sys_exit_again", Hook::TpBtf("sys_exit"));
