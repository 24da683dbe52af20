//! The processes that have one socket open.

/// The most holders that are kept for one socket.
pub const MOST_HOLDERS: usize = 32;

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The process.
    pub pid: u32,
    /// The thread that owns the descriptor table, if the threads do not share one.
    pub tid: u32,
    /// Its number in that table.
    pub fd: u32,
}

/// The processes that have the socket open: the first of them with one descriptor each, and
/// their number. A socket may be inherited by as many processes as a user may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    kept: Vec<Descriptor>,
    /// The number of processes that are not kept.
    more: usize,
    /// The process whose descriptor was added last. The descriptors of one table come one after
    /// the other.
    last: u32,
}

impl Descriptors {
    /// Adds a process by one of its descriptors. Returns whether the process is new. Among
    /// processes that are not kept, a thread with a descriptor table of its own does not count:
    /// its process may have been counted already.
    pub fn add(&mut self, descriptor: Descriptor) -> bool {
        let Descriptor { pid, tid, .. } = descriptor;
        if self.last == pid || self.kept.iter().any(|kept| kept.pid == pid) {
            return false;
        }
        let is_full = self.kept.len() >= MOST_HOLDERS;
        match is_full {
            false => self.kept.push(descriptor),
            true if tid != pid => return false,
            true => self.more += 1,
        }
        self.last = pid;
        true
    }

    /// Returns the first of them.
    pub fn kept(&self) -> impl Iterator<Item = Descriptor> {
        self.kept.iter().copied()
    }

    /// Returns how many processes there are.
    pub fn count(&self) -> usize {
        self.kept.len() + self.more
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_and_all_are_counted() {
        let mut descriptors = Descriptors::default();
        for pid in 1..=2_000 {
            for fd in [3, 9] {
                assert_eq!(
                    descriptors.add(Descriptor { pid, tid: pid, fd }),
                    fd == 3,
                    "{pid} {fd}"
                );
            }
        }
        let kept: Vec<_> =
            descriptors.kept().map(|descriptor| (descriptor.pid, descriptor.fd)).collect();
        assert_eq!(kept, (1..=32).map(|pid| (pid, 3)).collect::<Vec<_>>());
        assert_eq!(descriptors.count(), 2_000);
        for (pid, tid) in [(7, 3_000), (1_500, 3_001)] {
            assert!(
                !descriptors.add(Descriptor { pid, tid, fd: 3 }),
                "a thread of a process that was there"
            );
        }
        assert_eq!(descriptors.count(), 2_000);
    }
}
