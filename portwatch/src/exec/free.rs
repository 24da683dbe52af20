//! Whether ports are free by now for the binds that were refused them: by the same
//! rules by which the refusals were explained.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::refused::Refusal;
use crate::{
    conflict::{self, Kernel, Verdict},
    enrich::{
        host::{Host, NetnsRef},
        netns,
        sock_diag::{Entry, Query, protocol_number},
        sockets::dump_once,
    },
    evidence::{Family, Protocol, Socket},
};

/// How soon it is looked again.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a way into a namespace is looked for, and how long sockets are listed.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until nothing is in the way of any of the binds. Gives the first that
/// still has something in its way at the end of `timeout`.
pub async fn wait_free(refusals: &[Refusal], timeout: Duration) -> Result<(), Refusal> {
    let host = Host::current();
    let deadline = Instant::now() + timeout;
    while let Some(held) = refusals.iter().find(|refusal| is_held(&host, refusal)) {
        if Instant::now() >= deadline {
            return Err(held.clone());
        }
        sleep(INTERVAL).await;
    }
    Ok(())
}

/// Whether a socket on the port refuses the bind, or may do so for all that is
/// known. What cannot be listed holds nobody up.
fn is_held(host: &Host, refusal: &Refusal) -> bool {
    let netns = match refusal.netns {
        Some(inode) => netns::by_inode(host, inode, Instant::now() + LOOK),
        None => Some(NetnsRef::Own),
    };
    let Some(mut diag) = netns.and_then(|netns| host.sock_diag(&netns).ok()) else { return false };
    queries(refusal.failure.protocol).into_iter().any(|query| {
        let mut held = false;
        let refuses = |entry: Entry| held |= refuses(host, refusal, entry.into());
        // Of a walk that was torn the next time gives the rest.
        let deadline = Instant::now() + LOOK;
        if let Err(error) = dump_once(&mut *diag, query, refusal.failure.port, deadline, refuses) {
            tracing::warn!(error, "port {} is taken to be free", refusal.failure.port);
        }
        held
    })
}

/// What is to be listed, the quick ones first.
fn queries(protocol: Protocol) -> Vec<Query> {
    if protocol == Protocol::Tcp {
        return vec![Query::Listeners, Query::Connections, Query::Bound];
    }
    let families = [Family::Ipv4, Family::Ipv6];
    let query = |protocol| families.map(|family| Query::Other { protocol, family });
    protocol_number(protocol).map(query).into_iter().flatten().collect()
}

fn refuses(host: &Host, refusal: &Refusal, mut socket: Socket) -> bool {
    let Refusal { failure, reuseaddr, .. } = refusal;
    if failure.protocol == Protocol::Tcp {
        socket.reuseaddr = socket.reuseaddr.or(*reuseaddr);
    }
    conflict::judge_on(Kernel::of(&host.release), failure, &socket) != Verdict::Allows
}
