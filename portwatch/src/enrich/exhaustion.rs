//! How the range of ephemeral ports is used, for a bind that found none free.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use crate::{
    enrich::{
        host::{DiagSocket, Host},
        processes,
        sock_diag::{self, Query},
        sockets::dump_once,
    },
    evidence::{Ephemeral, Family, Protocol, Share, Usage},
    kernel::files::Files,
};

/// Sockets whose holders are looked for: as many as one search takes.
const SAMPLE: usize = portwatch_common::WANTED as usize;
/// Every so many sockets one is taken, so that the sample is not that of one
/// corner of the kernel's tables.
const STRIDE: usize = 61;

/// Lists all sockets of the protocol in the namespace of `diag`.
///
/// # Errors
/// The kernel's answer in words.
pub fn usage(
    host: &Host,
    diag: &mut dyn DiagSocket,
    files: &mut dyn Files,
    range: &Ephemeral,
    protocol: Protocol,
    deadline: Instant,
) -> Result<Usage, String> {
    let mut taken = vec![false; usize::from(u16::MAX) + 1];
    let mut states = BTreeMap::new();
    let mut sample = Vec::new();
    for query in queries(protocol)? {
        let mut held = 0usize;
        dump_once(diag, query, 0, |row| {
            let port = row.local.port();
            if !range.contains(port) {
                return;
            }
            if let Some(taken) = taken.get_mut(usize::from(port)) {
                *taken = true;
            }
            *states.entry(row.state).or_default() += 1;
            if let Some(inode) = row.inode {
                if sample.len() < SAMPLE && held.is_multiple_of(STRIDE) {
                    sample.push(inode);
                }
                held += 1;
            }
        })?;
    }
    let ports = taken.iter().filter(|&&taken| taken).count();
    Ok(Usage {
        ports: u32::try_from(ports).unwrap_or(u32::MAX),
        states,
        most_by: most_by(host, files, &sample, deadline),
    })
}

fn queries(protocol: Protocol) -> Result<Vec<Query>, String> {
    if protocol == Protocol::Tcp {
        return Ok(vec![Query::Tcp]);
    }
    let number = sock_diag::protocol_number(protocol)
        .ok_or("the kernel lists no sockets of this protocol")?;
    let families = [Family::Ipv4, Family::Ipv6];
    Ok(families.map(|family| Query::Other { protocol: number, family }).to_vec())
}

/// The process that has most of the sockets of a sample.
fn most_by(host: &Host, files: &mut dyn Files, sample: &[u64], deadline: Instant) -> Option<Share> {
    let mut count: HashMap<u32, u32> = HashMap::new();
    let searched = files.search(sample, deadline, &mut |file| {
        *count.entry(file.pid).or_default() += 1;
    });
    if let Err(why) = searched {
        tracing::debug!(why, "who has most ports is not known");
    }
    let (pid, sockets) = count.into_iter().max_by_key(|&(pid, sockets)| (sockets, pid))?;
    let of = u32::try_from(sample.len()).ok()?;
    Some(Share { process: processes::by_pid(host, pid)?, sockets, of })
}
