//! The order in which UDP checks the sockets on a port. It matters: the first that shares ends
//! the search, and hides a later one that would block.

use portwatch::conflict::{Clause, address::End, rule::Sock};

use super::{Ask, Asker, Meeting, meet};

/// Up to this many sockets in a port's slot all are checked; above, the owners of the address
/// and of the wildcards (`udp_lib_get_port`).
pub const FEW: usize = 10;

/// `udp_lib_get_port` for `sk`: returns the blocking socket and the rule. `by_port` are all
/// sockets on the port in the order of the first hash, `by_address` in that of the second.
pub fn get_port<K: Copy>(
    sk: &Asker,
    by_port: &[(K, Sock)],
    by_address: &[(K, Sock)],
    ask: Ask,
) -> Result<(), (K, Clause)> {
    // Since 6.1.168 a wildcard is never searched by its address alone.
    if ask != Ask::Port || sk.sock.end.is_wildcard() || by_port.len() <= FEW {
        return scan(sk, by_port, ask);
    }
    let at = |so: fn(End, End) -> bool| {
        by_address.iter().filter(move |(_, other)| so(sk.sock.end, other.end))
    };
    scan(sk, at(|own, other| own.key() == other.key()), ask)?;
    scan(sk, at(|_, other| other.is_wildcard()), ask)
}

/// `udp_lib_lport_inuse`. If any port is requested, a socket that shares does not end the
/// search.
pub fn scan<'a, K: Copy + 'a>(
    sk: &Asker,
    others: impl IntoIterator<Item = &'a (K, Sock)>,
    ask: Ask,
) -> Result<(), (K, Clause)> {
    for (key, other) in others {
        match meet(sk, other) {
            Meeting::Shared if ask == Ask::Port => return Ok(()),
            Meeting::Apart | Meeting::Shared => {}
            Meeting::Refuses(clause) => return Err((*key, clause)),
        }
    }
    Ok(())
}
