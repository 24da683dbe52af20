//! Function exits.

use super::{BEGINS, CGROUPS, COOKIES, Hook, Probe, STATE, Spec};
use crate::kernel::features::Features;

/// The facts about this hook set.
pub const SET: Spec = Spec {
    help: "Function exits, or fail",
    hooks: "exits of kernel functions",
    is_tried: true,
    needs_cgroup2: false,
    probes: &[
        Probe::required("pw_tcp_port", Hook::Fexit("inet_csk_get_port")),
        exit("pw_udp4_port", "udp_v4_get_port", "failed binds of IPv4 UDP sockets"),
        exit("pw_udp6_port", "udp_v6_get_port", "failed binds of IPv6 UDP sockets"),
        exit("pw_inet_bind", "inet_bind", "SCTP and ICMP echo sockets over IPv4"),
        exit("pw_inet6_bind", "inet6_bind", "SCTP and ICMP echo sockets over IPv6"),
        exit(
            "pw_same_addr",
            "inet_rcv_saddr_equal",
            "which socket blocks the bind, by the kernel's own check",
        ),
        exit(
            "pw_conflict",
            "inet_bind_conflict",
            "which TCP socket blocks the bind, by the kernel's own check (6.1 and later)",
        ),
        STATE,
        CGROUPS,
    ],
    // Programs can generate cookies wherever they are preempted.
    more: |features| match features {
        Features { preempts: true, .. } => &BEGINS,
        Features { cookies: true, .. } => &[],
        _ => &COOKIES,
    },
    misses: &[],
    cost: |_| "less than a microsecond on a bind and its listen, nothing on other system calls",
};

const fn exit(program: &'static str, function: &'static str, loss: &'static str) -> Probe {
    Probe::optional(program, Hook::Fexit(function), loss)
}
