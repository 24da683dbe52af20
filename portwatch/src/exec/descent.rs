//! Finds out whether a process descends from this one. Ancestors in between may have exited:
//! this process is a child subreaper, so their children became its own.

use std::{fs::File, io::Read as _};

use crate::proc::{self, MOST_STAT};

/// The most generations that are checked, as many as on the kernel side.
const MOST: usize = 32;

/// Returns whether the process `pid` descends from this one, by /proc; `false` if it has
/// exited.
pub fn is_ours(pid: u32) -> bool {
    comes_of(pid, std::process::id(), parent)
}

/// Returns whether `root` is an ancestor of `pid`.
fn comes_of(pid: u32, root: u32, parent: impl Fn(u32) -> Option<u32>) -> bool {
    std::iter::successors(parent(pid), |&pid| parent(pid)).take(MOST).any(|pid| pid == root)
}

fn parent(pid: u32) -> Option<u32> {
    let mut stat = Vec::new();
    File::open(format!("/proc/{pid}/stat")).ok()?.take(MOST_STAT).read_to_end(&mut stat).ok()?;
    Some(proc::stat(&stat)?.ppid).filter(|&parent| parent != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_through_others_and_no_stranger() {
        let parent = |pid| [(9, 7), (7, 5), (5, 1), (8, 1)].into_iter().find(|&(of, _)| of == pid);
        let parent = |pid| parent(pid).map(|(_, parent)| parent);
        assert!(comes_of(9, 5, parent));
        assert!(comes_of(7, 5, parent));
        assert!(!comes_of(5, 5, parent), "it is no child of its own");
        assert!(!comes_of(8, 5, parent));
        assert!(!comes_of(4, 5, parent), "it is gone");
    }

    #[test]
    fn a_circle_ends() {
        assert!(!comes_of(2, 1, |pid| Some(5 - pid)));
    }

    #[test]
    fn a_child_is_ours_and_a_parent_is_not() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(is_ours(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!is_ours(std::os::unix::process::parent_id()));
    }
}
