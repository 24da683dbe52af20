//! One socket against another, with everything about both known.

use crate::conflict::{
    Kernel,
    address::{End, Wildcards, equal, tcp_meet},
};

/// A socket, as far as the rules ask. A SO_REUSEPORT group that it is in already
/// is not part of it: only the kernel can see that one, and because of it a bind
/// may fail where the rule lets it share ([`Clause::BindHasReusePortGroup`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sock {
    /// Its own end.
    pub end: End,
    /// `sk_bound_dev_if`: the device's index, 0 for none.
    pub device: u32,
    /// `sk_reuse`.
    pub reuseaddr: bool,
    /// `sk_reuseport`.
    pub reuseport: bool,
    /// Its user. Before 6.16 the kernel takes root's where the socket has no file
    /// (`sock_i_uid`).
    pub uid: u32,
    /// What it is doing.
    pub phase: Phase,
}

/// The states that the rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Any other: bound, connected, closing.
    Open,
    /// `TCP_LISTEN`.
    Listens,
    /// `TCP_TIME_WAIT`, which is also the state of an orphan in FIN-WAIT-2 of
    /// which the kernel keeps no more than that (`tcp_time_wait`).
    TimeWait,
}

/// How a port is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// By its number, by bind or by listen: `relax` and `reuseport_ok`.
    Port,
    /// As any port: neither of the two (`inet_csk_find_open_port`).
    Any,
}

/// The clause of the rule that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::VariantArray)]
pub enum Clause {
    /// A listener, and SO_REUSEPORT is on neither side.
    Listens,
    /// A listener, although the bind has SO_REUSEADDR.
    ListensDespiteReuseAddr,
    /// A socket that does not listen, and the bind lacks SO_REUSEADDR.
    BindLacksReuseAddr,
    /// Both have SO_REUSEPORT, for different users.
    ReusePortOfOtherUser,
    /// A socket that does not listen and itself lacks SO_REUSEADDR.
    HolderLacksReuseAddr,
    /// The bind has SO_REUSEPORT, the holder has not.
    HolderLacksReusePort,
    /// The holder has SO_REUSEPORT, the bind has not.
    BindLacksReusePort,
    /// Both have SO_REUSEPORT, but the bind's socket has its group already.
    BindHasReusePortGroup,
    /// Any port was asked for, and this one is in use.
    InUse,
    /// Not both have SO_REUSEADDR, and which of the two lacks it is not known.
    OneLacksReuseAddr,
    /// The bind has SO_REUSEPORT; the holder lacks it or is another user's, and
    /// which of it is not known.
    ReusePortNotShared,
}

impl Clause {
    /// The clause in words, to be read after the name of the socket.
    pub fn words(self) -> &'static str {
        match self {
            Self::Listens => "listens, and SO_REUSEPORT is not set on both sockets",
            Self::ListensDespiteReuseAddr => {
                "listens; SO_REUSEADDR never lets a bind pass a socket that listens"
            }
            Self::BindLacksReuseAddr => {
                "blocks any bind without SO_REUSEADDR, and this bind does not set it"
            }
            Self::HolderLacksReuseAddr => {
                "was made without SO_REUSEADDR; it takes both sockets to have it, and this bind has"
            }
            Self::ReusePortOfOtherUser => {
                "has SO_REUSEPORT as this bind has, but it belongs to another user"
            }
            Self::HolderLacksReusePort => {
                "lacks SO_REUSEPORT; it takes both sockets to have it, and this bind has"
            }
            Self::BindLacksReusePort => {
                "has SO_REUSEPORT; it takes both sockets to have it, and this bind does not set it"
            }
            Self::BindHasReusePortGroup => {
                "has SO_REUSEPORT as this bind has, but this bind's socket is in a group of its own"
            }
            Self::OneLacksReuseAddr => {
                "blocks any bind unless both have SO_REUSEADDR; which of the two lacks it could \
                 not be seen"
            }
            Self::ReusePortNotShared => {
                "does not share by SO_REUSEPORT, which this bind has: it lacks that option or \
                 belongs to another user"
            }
            Self::InUse => "is on the port, and a bind to port 0 shares none",
        }
    }
}

/// Returns the clause by which TCP refuses `sk` because of `other`, if it does.
pub fn tcp_refuses(kernel: Kernel, sk: &Sock, other: &Sock, ask: Ask) -> Option<Clause> {
    let refused = flags_conflict(sk, other, ask) && tcp_meet(kernel, sk.end, other.end);
    refused.then(|| if ask == Ask::Port { clause(sk, other) } else { Clause::InUse })
}

/// `inet_bind_conflict`.
fn flags_conflict(sk: &Sock, other: &Sock, ask: Ask) -> bool {
    let reused = sk.reuseaddr && other.reuseaddr && other.phase != Phase::Listens;
    let passes = ask == Ask::Port && (reused || shares_reuseport(sk, other));
    !on_other_device(sk, other) && !passes
}

/// Returns the clause by which UDP refuses `sk` because of `other`, if it does
/// (one step of `udp_lib_lport_inuse`).
pub fn udp_refuses(sk: &Sock, other: &Sock) -> Option<Clause> {
    let apart = (sk.reuseaddr && other.reuseaddr)
        || on_other_device(sk, other)
        || !equal(sk.end, other.end, Wildcards::Both);
    (!apart && !shares_reuseport(sk, other)).then(|| clause(sk, other))
}

/// Devices keep sockets apart only where both are bound to one.
fn on_other_device(sk: &Sock, other: &Sock) -> bool {
    sk.device != 0 && other.device != 0 && sk.device != other.device
}

/// TIME-WAIT has no owner; the kernel does not ask.
fn shares_reuseport(sk: &Sock, other: &Sock) -> bool {
    let same_user = other.phase == Phase::TimeWait || sk.uid == other.uid;
    sk.reuseport && other.reuseport && same_user
}

/// The clause by which `other` refuses, given that it does. Whoever sets
/// SO_REUSEPORT meant to share, so that comes first.
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
