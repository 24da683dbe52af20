//! Finds a process through which an engineer can enter a network namespace that has no name.
//! The failing process has often exited by the time that a command is pasted.

use std::time::Instant;

use super::places;
use crate::{
    enrich::host::{Host, numbered},
    evidence::Evidence,
};

/// The most processes that are checked.
const MOST: usize = 4096;

/// Records a process that runs in the namespace, where neither a name nor a holder leads there:
/// an ancestor of the failing process, otherwise any process.
pub fn note_resident(host: &Host, evidence: &mut Evidence, deadline: Instant) {
    let Evidence { netns, process, sockets, last_holder, .. } = evidence;
    let Some(inside) = netns.inode.filter(|_| netns.host == Some(false)) else { return };
    let lives_there =
        |pid: u32| pid > 1 && places::inode(&host.proc_file(pid, "ns/net")) == Some(inside);
    let is_own = || places::inode(&host.proc_root.join("self/ns/net")) == Some(inside);
    let mut holders = sockets.iter().flat_map(|socket| &socket.holders);
    if netns.name.is_some() || is_own() || holders.any(|holder| lives_there(holder.pid)) {
        return;
    }
    // A process that no longer has its socket open is about to exit.
    let ends = last_holder.as_ref().map(|last| last.process.pid);
    let ancestor = process.ancestors.iter().copied().find(|&pid| lives_there(pid));
    netns.pid = ancestor.or_else(|| {
        let all = numbered(&host.proc_root).map(|(pid, _)| pid).take(MOST);
        all.take_while(|_| Instant::now() < deadline)
            .find(|&pid| pid != process.pid && Some(pid) != ends && lives_there(pid))
    });
}
