//! Compares one socket with another, with all properties of both known.

use crate::conflict::{
    Kernel,
    address::{End, Wildcards, equal, tcp_meet},
};

/// The properties of a socket that the rules need. The SO_REUSEPORT group that the socket may
/// already be in is missing, because only the kernel can see it. Because of that group a bind
/// may fail although the rule lets the two sockets share the port
/// ([`Clause::BindHasReusePortGroup`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sock {
    /// Its address.
    pub end: End,
    /// `sk_bound_dev_if`: the device's index, 0 for none.
    pub device: u32,
    /// `sk_reuse`.
    pub reuseaddr: bool,
    /// `sk_reuseport`.
    pub reuseport: bool,
    /// Its user. Before 6.16 the kernel uses root if the socket has no file (`sock_i_uid`).
    pub uid: u32,
    /// Its state.
    pub phase: Phase,
}

/// The states that the rules distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Any other: bound, connected, closing.
    Open,
    /// `TCP_LISTEN`.
    Listens,
    /// `TCP_TIME_WAIT`. It is also the state of an orphan in FIN-WAIT-2 if the kernel keeps
    /// only a minisock of it (`tcp_time_wait`).
    TimeWait,
}

/// How a port is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// By its number, by bind or by listen: `relax` and `reuseport_ok`.
    Port,
    /// As any free port: then neither of the two is set (`inet_csk_find_open_port`).
    Any,
}

/// The conflict rule that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::VariantArray)]
pub enum Clause {
    /// A listener, and neither socket sets SO_REUSEPORT.
    Listens,
    /// A listener, although the bind sets SO_REUSEADDR.
    ListensDespiteReuseAddr,
    /// A socket that is not listening, and the bind does not set SO_REUSEADDR.
    BindLacksReuseAddr,
    /// Both set SO_REUSEPORT, for different users.
    ReusePortOfOtherUser,
    /// A socket that is not listening and itself does not set SO_REUSEADDR.
    HolderLacksReuseAddr,
    /// The bind sets SO_REUSEPORT, the holder does not.
    HolderLacksReusePort,
    /// The holder sets SO_REUSEPORT, the bind does not.
    BindLacksReusePort,
    /// Both set SO_REUSEPORT, but the bind's socket already has a group.
    BindHasReusePortGroup,
    /// Any free port was requested, and this one is in use.
    InUse,
    /// One of the two does not set SO_REUSEADDR, and it is unknown which one.
    OneLacksReuseAddr,
    /// The bind sets SO_REUSEPORT. The holder does not set it or belongs to another user, and
    /// it is unknown which of these applies.
    ReusePortNotShared,
}

impl Clause {
    /// Returns the rule as text, to follow the name of the socket.
    pub fn words(self) -> &'static str {
        match self {
            Self::Listens => {
                "is listening; only if both sockets set SO_REUSEPORT could they share the port"
            }
            Self::ListensDespiteReuseAddr => {
                "is listening; SO_REUSEADDR does not help against a listener"
            }
            Self::BindLacksReuseAddr => {
                "blocks any bind without SO_REUSEADDR; this bind does not set it"
            }
            Self::HolderLacksReuseAddr => {
                "does not set SO_REUSEADDR; both sockets must, and this bind does"
            }
            Self::ReusePortOfOtherUser => {
                "sets SO_REUSEPORT like this bind, but belongs to another user"
            }
            Self::HolderLacksReusePort => {
                "does not set SO_REUSEPORT; both sockets must, and this bind does"
            }
            Self::BindLacksReusePort => {
                "sets SO_REUSEPORT; both sockets must, and this bind does not"
            }
            Self::BindHasReusePortGroup => {
                "sets SO_REUSEPORT like this bind, but this bind's socket is already in another group"
            }
            Self::OneLacksReuseAddr => {
                "blocks any bind unless both sockets set SO_REUSEADDR; which of the two does not \
                 is not known"
            }
            Self::ReusePortNotShared => {
                "does not share the port with this bind, which sets SO_REUSEPORT: it does not set \
                 it, or belongs to another user"
            }
            Self::InUse => "is using the port; a bind to port 0 never shares one",
        }
    }
}

/// Returns the clause by which `other` blocks `sk` in TCP, if it does.
pub fn tcp_refuses(kernel: Kernel, sk: &Sock, other: &Sock, ask: Ask) -> Option<Clause> {
    let refused = flags_conflict(sk, other, ask) && tcp_meet(kernel, sk.end, other.end);
    refused.then(|| if ask == Ask::Port { clause(sk, other) } else { Clause::InUse })
}

/// Implements `inet_bind_conflict`.
fn flags_conflict(sk: &Sock, other: &Sock, ask: Ask) -> bool {
    let reused = sk.reuseaddr && other.reuseaddr && other.phase != Phase::Listens;
    let passes = ask == Ask::Port && (reused || shares_reuseport(sk, other));
    !on_other_device(sk, other) && !passes
}

/// Returns the clause by which `other` blocks `sk` in UDP, if it does (one step of
/// `udp_lib_lport_inuse`).
pub fn udp_refuses(sk: &Sock, other: &Sock) -> Option<Clause> {
    let apart = (sk.reuseaddr && other.reuseaddr)
        || on_other_device(sk, other)
        || !equal(sk.end, other.end, Wildcards::Both);
    (!apart && !shares_reuseport(sk, other)).then(|| clause(sk, other))
}

/// Returns whether different devices separate the sockets: only if both are bound to one.
fn on_other_device(sk: &Sock, other: &Sock) -> bool {
    sk.device != 0 && other.device != 0 && sk.device != other.device
}

/// Returns whether the two can share the port. TIME-WAIT has no owner, and the kernel does not
/// compare it.
fn shares_reuseport(sk: &Sock, other: &Sock) -> bool {
    let same_user = other.phase == Phase::TimeWait || sk.uid == other.uid;
    sk.reuseport && other.reuseport && same_user
}

/// Returns the clause by which `other` blocks, given that it does. A program that sets
/// SO_REUSEPORT intends to share the port, so that option comes first.
pub fn clause(sk: &Sock, other: &Sock) -> Clause {
    let listens = other.phase == Phase::Listens;
    match (sk.reuseport, other.reuseport) {
        (true, true) if shares_reuseport(sk, other) => Clause::BindHasReusePortGroup,
        (true, true) => Clause::ReusePortOfOtherUser,
        (true, false) => Clause::HolderLacksReusePort,
        (false, true) if listens => Clause::BindLacksReusePort,
        (false, _) => match (listens, sk.reuseaddr) {
            (true, true) => Clause::ListensDespiteReuseAddr,
            (true, false) => Clause::Listens,
            (false, true) => Clause::HolderLacksReuseAddr,
            (false, false) => Clause::BindLacksReuseAddr,
        },
    }
}
