//! Who has one socket open.

/// Holders that are kept for one socket.
pub const MOST_HOLDERS: usize = 32;

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The process.
    pub pid: u32,
    /// The thread whose table it is in, where not all threads share one.
    pub tid: u32,
    /// Its number in that table.
    pub fd: u32,
}

/// The processes that have it open: the first of them with a descriptor each, and how many
/// there are. One socket may be inherited by as many processes as a user may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    kept: Vec<Descriptor>,
    /// Those that are not kept.
    more: usize,
    /// Whose descriptor was added last: those of one table come one after the other.
    last: u32,
}

impl Descriptors {
    /// Adds a process by one of its descriptors. Returns whether it is another than those
    /// before. Among those that are not kept, a thread with a table of its own is nobody
    /// new, since nothing tells whether its process was there.
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

    /// The first of them.
    pub fn kept(&self) -> impl Iterator<Item = Descriptor> {
        self.kept.iter().copied()
    }

    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.kept.len() + self.more
    }

    /// Whether there is none.
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
