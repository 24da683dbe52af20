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
/// Sockets out of which the sample is taken.
const MOST_SOCKETS: usize = 65_536;
/// A smaller sample accuses nobody, unless it is all there is.
const FEW: usize = 16;

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
    let mut inodes = Vec::new();
    for query in queries(protocol)? {
        dump_once(diag, query, 0, |row| {
            let port = row.local.port();
            if !range.contains(port) {
                return;
            }
            if let Some(taken) = taken.get_mut(usize::from(port)) {
                *taken = true;
            }
            *states.entry(row.state).or_default() += 1;
            inodes.extend(row.inode.filter(|_| inodes.len() < MOST_SOCKETS));
        })?;
    }
    let ports = taken.iter().filter(|&&taken| taken).count();
    Ok(Usage {
        ports: u32::try_from(ports).unwrap_or(u32::MAX),
        states,
        most_by: most_by(host, files, &inodes, deadline),
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

/// The process that has most of the sockets, by a sample from all over them; `None`
/// if none has half.
fn most_by(host: &Host, files: &mut dyn Files, inodes: &[u64], deadline: Instant) -> Option<Share> {
    let stride = inodes.len().div_ceil(SAMPLE).max(1);
    let sample: Vec<u64> = inodes.iter().step_by(stride).copied().collect();
    if sample.len() < FEW && sample.len() < inodes.len() {
        return None;
    }
    let mut count: HashMap<u32, u32> = HashMap::new();
    let searched = files.search(&sample, deadline, &mut |file| {
        *count.entry(file.pid).or_default() += 1;
    });
    if let Err(why) = searched {
        tracing::debug!(why, "who has most ports is not known");
    }
    let (pid, sockets) = count.into_iter().max_by_key(|&(pid, sockets)| (sockets, pid))?;
    let of = u32::try_from(sample.len()).ok()?;
    (sockets >= of.div_ceil(2)).then_some(())?;
    Some(Share { process: processes::by_pid(host, pid)?, sockets, of })
}
