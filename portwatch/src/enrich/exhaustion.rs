//! Measures how the ephemeral port range is used, for a bind that found no free port.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use crate::{
    enrich::{
        halfway,
        host::{DiagSocket, Host},
        processes,
        sock_diag::{self, Query},
        sockets::{ListError, dump_once},
    },
    evidence::{Ephemeral, Family, Protocol, Share, Usage},
    kernel::files::{Files, Sought},
};

/// The most sockets whose holders are searched.
const SAMPLE: usize = 64;
/// A smaller sample is meaningful only if it contains all sockets.
const FEWEST: usize = 16;
/// The most sockets that are kept while they are listed.
const MOST_KEPT: usize = 4096;

/// Lists all sockets of the protocol in the namespace of `diag`.
///
/// # Errors
/// The kernel does not list all of them, or not in time: a partial list does not describe the
/// range.
pub fn usage(
    host: &Host,
    diag: &mut dyn DiagSocket,
    files: &mut dyn Files,
    range: &Ephemeral,
    protocol: Protocol,
    deadline: Instant,
) -> Result<Usage, ListError> {
    let mut taken = vec![false; usize::from(u16::MAX) + 1];
    let mut states = BTreeMap::new();
    let mut held = Spread::default();
    let mut sockets = 0usize;
    for query in queries(protocol)? {
        dump_once(diag, query, 0, halfway(deadline), |row| {
            let port = row.local.port();
            if !range.contains(port) {
                return;
            }
            if let Some(taken) = taken.get_mut(usize::from(port)) {
                *taken = true;
            }
            *states.entry(row.state).or_default() += 1;
            sockets += 1;
            if let Some(inode) = row.inode {
                held.add(inode);
            }
        })?;
    }
    let sample = held.sample();
    let tells = sample.len() >= FEWEST || sample.len() == sockets;
    let ports = taken.iter().filter(|&&taken| taken).count();
    Ok(Usage {
        ports: u32::try_from(ports).unwrap_or(u32::MAX),
        states,
        most_by: tells.then(|| most_by(host, files, &sample, deadline)).flatten(),
    })
}

fn queries(protocol: Protocol) -> Result<Vec<Query>, ListError> {
    if protocol == Protocol::Tcp {
        return Ok(vec![Query::Tcp]);
    }
    let number = sock_diag::protocol_number(protocol).ok_or(ListError::Protocol)?;
    let families = [Family::Ipv4, Family::Ipv6];
    Ok(families.map(|family| Query::Other { protocol: number, family }).to_vec())
}

/// An even sample of everything that is added. The kernel lists its tables in order, so one
/// part of a table may belong to one program.
#[derive(Default)]
struct Spread {
    /// Every `every`-th socket of those that were added.
    kept: Vec<u64>,
    /// As a power of two.
    every: u32,
    added: u64,
}

impl Spread {
    fn add(&mut self, inode: u64) {
        if self.added.trailing_zeros() >= self.every {
            self.kept.push(inode);
        }
        self.added += 1;
        if self.kept.len() > MOST_KEPT {
            let mut is_kept = false;
            self.kept.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.every += 1;
        }
    }

    /// Returns the sample, or all sockets if there are not more than that.
    fn sample(&self) -> Vec<u64> {
        let count = self.kept.len().min(SAMPLE);
        let place = |number: usize| number * self.kept.len() / count.max(1);
        (0..count).filter_map(|number| self.kept.get(place(number)).copied()).collect()
    }
}

/// Returns the process that has at least half of the sockets of a sample.
fn most_by(host: &Host, files: &mut dyn Files, sample: &[u64], deadline: Instant) -> Option<Share> {
    let places: HashMap<u64, usize> =
        sample.iter().enumerate().map(|(place, &inode)| (inode, place)).collect();
    // One bit for each socket of the sample that the process has open, because one socket may
    // have several descriptors.
    let mut has: HashMap<u32, u64> = HashMap::new();
    let searched = files.search(Sought::Sockets(sample), deadline, &mut |file| {
        if let Some(&place) = places.get(&file.inode) {
            *has.entry(file.pid).or_default() |= 1 << place;
        }
    });
    if let Err(why) = searched {
        tracing::debug!(%why, "the process with most ports is not known");
    }
    // For a program and the children that inherited its sockets, the first process counts.
    let most = has.into_iter().map(|(pid, bits)| (bits.count_ones(), Reverse(pid))).max();
    let of = u32::try_from(sample.len()).ok()?;
    let (sockets, Reverse(pid)) = most.filter(|(sockets, _)| sockets * 2 >= of)?;
    Some(Share { process: processes::by_pid(host, pid)?, sockets, of })
}

const _: () = assert!(SAMPLE <= u64::BITS as usize);

#[cfg(test)]
mod tests {
    use std::io;

    use tempfile::TempDir;

    use super::*;
    use crate::enrich::tests::fake::OpenFiles;

    fn spread(many: u64) -> Spread {
        let mut spread = Spread::default();
        (0..many).for_each(|inode| spread.add(inode));
        spread
    }

    #[test]
    fn few_are_all_taken_and_many_evenly() {
        for few in [0, 1, 10, 64] {
            assert_eq!(spread(few).sample(), (0..few).collect::<Vec<_>>());
        }
        for many in [65, 100, 4_096, 4_097, 28_232, 1_000_000] {
            let spread = spread(many);
            let sample = spread.sample();
            assert_eq!(sample.len(), SAMPLE, "{many}");
            assert!(spread.kept.len() <= MOST_KEPT, "{many}");
            let quarter = |number: u64| {
                let within = many * number / 4..many * (number + 1) / 4;
                sample.iter().filter(|inode| within.contains(inode)).count()
            };
            for number in 0..4 {
                assert!((14..=18).contains(&quarter(number)), "{many} {number}: {sample:?}");
            }
        }
    }

    #[test]
    fn who_has_half_of_them_is_named() {
        let root = TempDir::new().unwrap();
        let host = Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::Unsupported.into())));
        for pid in [7, 8] {
            let folder = root.path().join(format!("proc/{pid}"));
            std::fs::create_dir_all(&folder).unwrap();
            let zeros = " 0".repeat(48);
            std::fs::write(folder.join("stat"), format!("{pid} (app) S 1{zeros}\n")).unwrap();
        }
        let sample: Vec<u64> = (1..=20).collect();
        let named = |open: &[(u32, u64)]| {
            let most = most_by(&host, &mut OpenFiles(open.to_vec()), &sample, Instant::now());
            most.map(|share| (share.process.pid, share.sockets, share.of))
        };
        let half: Vec<_> = (1..=10).map(|inode| (7, inode)).collect();
        assert_eq!(named(&half), Some((7, 10, 20)));
        assert_eq!(named(&half[..9]), None, "less than half");
        let twice = [&half[..9], &half[..9]].concat();
        assert_eq!(named(&twice), None, "one socket counts once");
        let inherited: Vec<_> =
            half.iter().flat_map(|&(_, inode)| [(8, inode), (7, inode)]).collect();
        assert_eq!(named(&inherited), Some((7, 10, 20)), "the parent of the two");
    }
}
