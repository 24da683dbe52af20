//! The record's beginning: what was bound and connected before the agent was
//! there to see it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use portwatch_common::{ANY_SOCKET, Owner, Port};

use crate::{
    enrich::{host::Host, netns, processes, sock_diag::Query, sockets::dump_once},
    evidence::{Family, State},
    kernel::{files::Files, records::Records},
};

/// How long it may take. What is not on record by then is found by a search when
/// it is asked for.
const DEADLINE: Duration = Duration::from_secs(5);
/// Namespaces that are looked into.
const MOST_NAMESPACES: usize = 1024;
/// Sockets that are looked at, holders of ports among them; the record of owners
/// holds no more.
const MOST_SOCKETS: usize = 16_384;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Puts on record who holds which port now, in every namespace, and which ports
/// have connections. Never fails; what cannot be had is found when it is needed.
pub fn seed(host: &Host, records: &mut dyn Records, files: &mut dyn Files) {
    let deadline = Instant::now() + DEADLINE;
    let (namespaces, mut complete) = netns::all(host, MOST_NAMESPACES);
    let mut holding: HashMap<u64, (u64, Port)> = HashMap::new();
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
            let listed = dump_once(&mut *diag, query, 0, |row| {
                let port = row.local.port();
                if !matches!(row.state, State::Listen | State::Bound | State::Unconn) {
                    records.seed_connected(port);
                } else if let (Some(inode), Some(cookie), Some(netns_cookie)) =
                    (row.inode, row.cookie, netns_cookie)
                    && holding.len() < MOST_SOCKETS
                {
                    let protocol = u16::from(protocol);
                    let port = Port { netns_cookie, port, protocol, reserved: 0 };
                    holding.insert(inode, (cookie, port));
                }
            });
            complete &= listed.is_ok();
        }
    }
    let sockets = holding.len();
    seed_owners(host, records, files, holding, deadline);
    if complete {
        records.seeded();
    }
    tracing::debug!(namespaces = namespaces.len(), sockets, complete, "seeded");
}

/// One pass over all open files says who has them.
fn seed_owners(
    host: &Host,
    records: &mut dyn Records,
    files: &mut dyn Files,
    mut holding: HashMap<u64, (u64, Port)>,
    deadline: Instant,
) {
    let mut found = Vec::new();
    let searched = files.search(&[ANY_SOCKET], deadline, &mut |file| {
        // Of several holders the first, which is the oldest as a rule.
        found.extend(holding.remove(&file.inode).map(|socket| (file.pid, socket)));
    });
    if let Err(why) = searched {
        tracing::debug!(why, "not every holder is on record; they are searched for when needed");
    }
    let mut owners = HashMap::new();
    for (pid, (cookie, port)) in found {
        let owner = owners.entry(pid).or_insert_with(|| processes::owner(host, pid));
        if let Some(owner) = owner {
            records.seed(cookie, Owner { port, ..*owner });
        }
    }
}
