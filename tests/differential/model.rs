//! The kernel's other rules, which depend on state that the product cannot see. The product's
//! rule compares two sockets; this module adds SO_REUSEPORT groups, TCP's state of a port
//! ([`bucket`]) and the order in which UDP checks the sockets ([`udp`]).

use portwatch::conflict::{
    self, Clause,
    rule::{self, Sock, tcp_refuses, udp_refuses},
};

use crate::bugs::Version;

pub mod bucket;
pub mod udp;

#[cfg(test)]
mod tests;

/// How a kernel behaves where kernels differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What the product knows of it.
    pub rule: conflict::Kernel,
    /// Whether the first owner of a port may open its fast path
    /// (`inet_csk_update_fastreuse`). From 6.8 on the second bucket is linked
    /// before the owners are counted, so that there is never a first.
    pub first_owner_counts: bool,
    /// Whether a SO_REUSEPORT group can keep those that have stopped listening
    /// (`num_closed_socks`, 5.14). 5.10.262 has the setting for it,
    /// net.ipv4.tcp_migrate_req, without the effect.
    pub groups_keep_closed: bool,
    /// Whether a port's state is reset when only the sockets of connect(2) are left on it
    /// (`inet_bind_bucket_destroy`, 6.18).
    pub buckets_recover: bool,
    /// Whether a socket without a file keeps its user: `sk_uid` (6.16); older kernels use the
    /// file's, or root without a file (`sock_i_uid`).
    pub uid_outlives_file: bool,
}

impl Kernel {
    pub fn of((major, minor, patch): Version) -> Self {
        let version = (major, minor);
        Self {
            rule: conflict::Kernel::of(&format!("{major}.{minor}.{patch}")),
            first_owner_counts: version < (6, 8),
            groups_keep_closed: version >= (5, 14),
            buckets_recover: version >= (6, 18),
            uid_outlives_file: version >= (6, 16),
        }
    }
}

/// A socket that requests a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub sock: Sock,
    /// Its own group (`sk_reuseport_cb`). The kernel does not check that of the others.
    pub group: Group,
}

/// A socket's SO_REUSEPORT group. A socket gets one when it listens (TCP), is bound (UDP), or
/// gets a program (SO_ATTACH_REUSEPORT_CBPF); one that only requests a port usually has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    None,
    /// One with open sockets only.
    Open,
    /// One with sockets that have stopped listening and may pass on their
    /// connections (`num_closed_socks`, net.ipv4.tcp_migrate_req, 5.14).
    HasClosed,
}

/// How a port is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// By its number, by bind or by listen: `relax` and `reuseport_ok`.
    Port,
    /// As any free port: neither of the two (`inet_csk_find_open_port`).
    Any,
    /// As any port, when all are in use and net.ipv4.ip_autobind_reuse is 1: only `relax`.
    AnyRelaxed,
}

/// The result of UDP's comparison with another socket on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// They do not conflict, and the search goes on.
    Apart,
    /// They share the port by SO_REUSEPORT.
    Shared,
    /// The other one blocks.
    Refuses(Clause),
}

/// `inet_bind_conflict`, after the addresses have met.
pub fn refuses(kernel: Kernel, sk: &Asker, other: &Sock, ask: Ask) -> Option<Clause> {
    let may_join = sk.group != Group::Open;
    // The options with which a bind to the port would succeed.
    let passes_by = |reuseaddr: bool, reuseport: bool| {
        let sock = Sock {
            reuseaddr: sk.sock.reuseaddr && reuseaddr,
            reuseport: sk.sock.reuseport && reuseport && may_join,
            ..sk.sock
        };
        tcp_refuses(kernel.rule, &sock, other, rule::Ask::Port).is_none()
    };
    match ask {
        Ask::Port => (!passes_by(true, true)).then(|| rule::clause(&sk.sock, other)),
        Ask::Any => tcp_refuses(kernel.rule, &sk.sock, other, rule::Ask::Any),
        Ask::AnyRelaxed => refuses(kernel, sk, other, Ask::Any)
            .filter(|_| !passes_by(true, false) || passes_by(false, true)),
    }
}

/// One step of `udp_lib_lport_inuse`.
pub fn meet(sk: &Asker, other: &Sock) -> Meeting {
    let without = Sock { reuseport: false, ..sk.sock };
    let asks = if sk.group == Group::None { sk.sock } else { without };
    match (udp_refuses(&asks, other), udp_refuses(&without, other)) {
        (Some(_), _) => Meeting::Refuses(rule::clause(&sk.sock, other)),
        (None, Some(_)) => Meeting::Shared,
        (None, None) => Meeting::Apart,
    }
}
