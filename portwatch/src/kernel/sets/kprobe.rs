//! Entries and returns of kernel functions, for kernels without function exits: on arm64 before
//! 6.4, and where `CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS` is off.

use super::{CGROUPS, COOKIES, COOKIES_AND_BEGINS, Hook, Probe, STATE, Spec};

/// The facts about this hook set. An entry of `get_port` without its return is counted as a
/// loss, so the return comes first. A return of `inet_bind` without its entry is, so the entry
/// comes first.
pub const SET: Spec = Spec {
    help: "Kprobes, or fail",
    hooks: "entries and returns of kernel functions",
    is_tried: true,
    needs_cgroup2: false,
    probes: &[
        Probe::required("pw_tcp_port_return", Hook::Kretprobe(TCP_PORT)),
        Probe::required("pw_tcp_port_enter", Hook::Kprobe(TCP_PORT)),
        returns("pw_udp4_port_return", UDP4_PORT, UDP4),
        enters("pw_udp4_port_enter", UDP4_PORT, UDP4),
        returns("pw_udp6_port_return", UDP6_PORT, UDP6),
        enters("pw_udp6_port_enter", UDP6_PORT, UDP6),
        enters("pw_inet_bind_enter", "inet_bind", OTHERS4),
        returns("pw_inet_bind_return", "inet_bind", OTHERS4),
        enters("pw_inet6_bind_enter", "inet6_bind", OTHERS6),
        returns("pw_inet6_bind_return", "inet6_bind", OTHERS6),
        enters("pw_same_addr_enter", SAME_ADDR, BLOCKS),
        returns("pw_same_addr_return", SAME_ADDR, BLOCKS),
        enters("pw_conflict_enter", CONFLICT, TCP_BLOCKS),
        returns("pw_conflict_return", CONFLICT, TCP_BLOCKS),
        STATE,
        CGROUPS,
    ],
    // These programs can never generate cookies.
    more: |features| if features.preempts { &COOKIES_AND_BEGINS } else { &COOKIES },
    misses: &[],
    cost: |_| "some microseconds on a bind and its listen, nothing on other system calls",
};

const TCP_PORT: &str = "inet_csk_get_port";
const UDP4_PORT: &str = "udp_v4_get_port";
const UDP6_PORT: &str = "udp_v6_get_port";
const SAME_ADDR: &str = "inet_rcv_saddr_equal";
const CONFLICT: &str = "inet_bind_conflict";

const UDP4: &str = "failed binds of IPv4 UDP sockets";
const UDP6: &str = "failed binds of IPv6 UDP sockets";
const OTHERS4: &str = "SCTP and ICMP echo sockets over IPv4";
const OTHERS6: &str = "SCTP and ICMP echo sockets over IPv6";
const BLOCKS: &str = "which socket blocks the bind, by the kernel's own check";
const TCP_BLOCKS: &str =
    "which TCP socket blocks the bind, by the kernel's own check (6.1 and later)";

const fn returns(program: &'static str, function: &'static str, loss: &'static str) -> Probe {
    Probe::optional(program, Hook::Kretprobe(function), loss)
}

const fn enters(program: &'static str, function: &'static str, loss: &'static str) -> Probe {
    Probe::optional(program, Hook::Kprobe(function), loss)
}
