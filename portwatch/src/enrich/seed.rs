//! Fills the owner record with the sockets that were bound and connected before the agent
//! started.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use portwatch_common::{ANY_SOCKET, Owner, Port};

use crate::{
    decode::{AF_INET, AF_INET6},
    enrich::{host::Host, netns, processes, sock_diag::Query, sockets::dump_once},
    evidence::{Family, State},
    kernel::{
        files::{Files, Sought},
        records::Records,
    },
};

/// Time limit. What is not recorded by then is searched when it is needed.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time limit for waits on processes that do not respond when their memory is read.
const MOST_IN_VAIN: Duration = Duration::from_secs(1);
/// The most namespaces that are listed.
const MOST_NAMESPACES: usize = 1024;
/// The most sockets that are listed, including those that have a port: half of the owner
/// record's size.
const MOST_SOCKETS: usize = 16_384;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A socket that has a port, before its process is known.
struct Held {
    cookie: u64,
    port: Port,
    address: IpAddr,
}

/// Records which process has which port open now, in every namespace, and which ports have
/// connections. Never fails: what is not available is searched when it is needed.
pub fn seed(host: &Host, records: &mut dyn Records, files: &mut dyn Files) {
    let deadline = Instant::now() + DEADLINE;
    host.begin(MOST_IN_VAIN);
    let (namespaces, mut complete) = netns::all(host, MOST_NAMESPACES);
    let mut holding: HashMap<u64, Held> = HashMap::new();
    for namespace in &namespaces {
        let Ok(mut diag) = host.sock_diag(namespace) else {
            complete = false;
            continue;
        };
        let netns_cookie = diag.netns_cookie();
        let queries = [
            (Query::Tcp, TCP),
            (Query::Other { protocol: UDP, family: Family::Ipv4 }, UDP),
            (Query::Other { protocol: UDP, family: Family::Ipv6 }, UDP),
        ];
        for (query, protocol) in queries {
            if Instant::now() > deadline {
                complete = false;
                break;
            }
            let listed = dump_once(&mut *diag, query, 0, deadline, |row| {
                let port = row.local.port();
                if !matches!(row.state, State::Listen | State::Bound | State::Unconn) {
                    records.seed_connected(port);
                } else if let (Some(inode), Some(cookie), Some(netns_cookie)) =
                    (row.inode, row.cookie, netns_cookie)
                    && holding.len() < MOST_SOCKETS
                {
                    let protocol = u16::from(protocol);
                    let port = Port { netns_cookie, port, protocol, reserved: 0 };
                    holding.insert(inode, Held { cookie, port, address: row.local.ip() });
                }
            });
            if listed.is_err() {
                complete = false;
                // The old socket may still contain the rest of a reply.
                let Ok(another) = host.sock_diag(namespace) else { break };
                diag = another;
            }
        }
    }
    let sockets = holding.len();
    seed_owners(host, records, files, holding, deadline);
    if complete {
        records.seeded();
    }
    tracing::debug!(namespaces = namespaces.len(), sockets, complete, "seeded");
}

/// Finds their processes in one pass over all open files.
fn seed_owners(
    host: &Host,
    records: &mut dyn Records,
    files: &mut dyn Files,
    mut holding: HashMap<u64, Held>,
    deadline: Instant,
) {
    let mut found = Vec::new();
    let searched = files.search(Sought::Sockets(&[ANY_SOCKET]), deadline, &mut |file| {
        // Of several holders the first one counts, which is usually the oldest.
        found.extend(holding.remove(&file.inode).map(|socket| (file.pid, socket)));
    });
    if let Err(why) = searched {
        tracing::debug!(
            %why,
            "the owner record is incomplete; missing holders are searched when needed"
        );
    }
    let mut owners = HashMap::new();
    for (pid, Held { cookie, port, address }) in found {
        if Instant::now() > deadline {
            tracing::debug!("the deadline was reached before every holder was recorded");
            break;
        }
        let owner = owners.entry(pid).or_insert_with(|| processes::owner(host, pid));
        if let Some((owner, arguments)) = owner {
            let (family, address) = bytes_of(address);
            records.seed(Owner { cookie, port, family, address, ..*owner }, arguments);
        }
    }
}

/// Returns an address in the form in which the kernel side writes it.
fn bytes_of(address: IpAddr) -> (u16, [u8; 16]) {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(v4.octets()).for_each(|(to, from)| *to = from);
            (AF_INET, bytes)
        }
        IpAddr::V6(v6) => (AF_INET6, v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::address_of;

    #[test]
    fn addresses_are_read_as_they_were_written() {
        for text in ["10.0.4.12", "0.0.0.0", "::", "fe80::1", "::ffff:10.0.0.1"] {
            let address: IpAddr = text.parse().unwrap();
            let (family, bytes) = bytes_of(address);
            assert_eq!(address_of(family, bytes).map(|(_, address)| address), Ok(address));
        }
    }
}
