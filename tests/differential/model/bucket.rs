//! TCP's state of a port (`struct inet_bind_bucket`). It only makes the kernel more lenient:
//! every failure has its reason in the rule, but a bind may succeed although the rule blocks
//! it. The agent cannot see a bucket, so this is only for the test, which has seen everything
//! that happened to a port.

use std::{collections::BTreeMap, net::Ipv6Addr};

use portwatch::conflict::{
    Clause,
    address::{End, Wildcards, equal},
    rule::{Phase, Sock},
};

use super::{Ask, Asker, Group, Kernel, refuses};

/// The state of a port that has owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    fastreuse: bool,
    fastreuseport: FastReuseport,
    /// The second buckets, and whether each is one of connect(2) only.
    addresses: BTreeMap<Ipv6Addr, bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FastReuseport {
    /// Only connect(2) has taken the port (-1).
    ConnectOnly,
    /// 0.
    Closed,
    /// All owners are this user's and share.
    Any { uid: u32 },
    /// The last one to share had this end, and no conflict.
    Strict { uid: u32, end: End },
}

/// `inet_csk_get_port` for `sk`, whose port the `others` own: returns the blocking socket and
/// the rule.
pub fn get_port<'a, K>(
    kernel: Kernel,
    bucket: Option<&Bucket>,
    sk: &Asker,
    others: impl IntoIterator<Item = (K, &'a Sock)>,
    ask: Ask,
) -> Result<(), (K, Clause)> {
    if ask == Ask::Port && bucket.is_some_and(|bucket| bucket.lets_pass(sk)) {
        return Ok(());
    }
    let refusal =
        others.into_iter().find_map(|(key, other)| Some((key, refuses(kernel, sk, other, ask)?)));
    refusal.map_or(Ok(()), Err)
}

impl Bucket {
    /// Creates the state of a port that `sk` is the first to take.
    pub fn first(kernel: Kernel, sk: &Asker) -> Self {
        let mut bucket = Self {
            fastreuse: false,
            fastreuseport: FastReuseport::Closed,
            addresses: BTreeMap::new(),
        };
        bucket.took(sk);
        if kernel.first_owner_counts {
            bucket.fastreuse = may_reuse(&sk.sock);
            if sk.sock.reuseport {
                bucket.fastreuseport = FastReuseport::Any { uid: sk.sock.uid };
            }
        }
        bucket
    }

    /// Creates the state of a port that connect(2) is the first to take
    /// (`__inet_hash_connect`).
    pub fn first_of_connect(end: End) -> Self {
        Self {
            fastreuse: false,
            fastreuseport: FastReuseport::ConnectOnly,
            addresses: BTreeMap::from([(end.key(), true)]),
        }
    }

    /// Returns whether only connect(2) has taken the port, which leaves it to other
    /// connections.
    pub fn is_of_connect_only(&self) -> bool {
        self.fastreuseport == FastReuseport::ConnectOnly
    }

    /// The fast path, which checks no other socket.
    fn lets_pass(&self, sk: &Asker) -> bool {
        (self.fastreuse && may_reuse(&sk.sock)) || self.matches(sk)
    }

    /// `sk_reuseport_match`.
    fn matches(&self, Asker { sock, group }: &Asker) -> bool {
        let (fast_uid, meets) = match self.fastreuseport {
            FastReuseport::ConnectOnly | FastReuseport::Closed => return false,
            FastReuseport::Any { uid } => (uid, true),
            FastReuseport::Strict { uid, end } => (uid, equal(end, sock.end, Wildcards::First)),
        };
        sock.reuseport && *group == Group::None && sock.uid == fast_uid && meets
    }

    /// `sk` has got the port (`inet_csk_update_fastreuse`).
    pub fn took(&mut self, sk: &Asker) {
        let Sock { end, uid, reuseport, .. } = sk.sock;
        self.fastreuse &= may_reuse(&sk.sock);
        if !reuseport {
            self.fastreuseport = FastReuseport::Closed;
        } else if !self.matches(sk) {
            self.fastreuseport = FastReuseport::Strict { uid, end };
        }
        self.addresses.insert(end.key(), false);
    }

    /// Adds a socket that is on the port without having requested it: a listener's connection
    /// (`__inet_inherit_port`), or one more of connect(2).
    pub fn joined(&mut self, end: End, by_connect: bool) {
        self.addresses.entry(end.key()).or_insert(by_connect);
    }

    /// Removes a socket at `end`; `left` are the ends of the others, and whether each is there
    /// by connect(2).
    pub fn released(&mut self, kernel: Kernel, end: End, left: &[(End, bool)]) {
        // inet_bind2_bucket_destroy
        let mut there = left.iter().filter(|(other, _)| other.key() == end.key()).peekable();
        if there.peek().is_none() {
            self.addresses.remove(&end.key());
        } else if there.all(|(_, by_connect)| *by_connect) {
            self.addresses.insert(end.key(), true);
        }
        let only =
            !self.addresses.is_empty() && self.addresses.values().all(|of_connect| *of_connect);
        if kernel.buckets_recover && only {
            self.fastreuse = false;
            self.fastreuseport = FastReuseport::ConnectOnly;
        }
    }
}

/// `sk->sk_reuse && sk->sk_state != TCP_LISTEN`
fn may_reuse(sk: &Sock) -> bool {
    sk.reuseaddr && sk.phase != Phase::Listens
}
