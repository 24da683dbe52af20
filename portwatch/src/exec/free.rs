//! Whether ports are free by now for the binds that were refused them: by the same
//! rules by which the refusals were explained.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::refused::Refusal;
use crate::{
    conflict::{self, Kernel, Verdict},
    enrich::{
        host::Host,
        netns::again::{Again, enter_again},
        sock_diag::{Entry, Query, protocol_number},
        sockets::dump_once,
    },
    evidence::{Family, Protocol, Socket},
};

/// How soon it is looked again.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a way into a namespace is looked for, and how long sockets are listed.
const LOOK: Duration = Duration::from_secs(1);

/// Why a port was not free in time.
#[derive(Debug)]
pub enum NotFree {
    /// Something still has it.
    Held(Refusal),
    /// Nobody knows; why.
    Unknown(Refusal, String),
}

/// How it stands with one bind.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Free,
    Held,
    Unknown(String),
}

/// Waits until nothing is in the way of any of the binds.
///
/// # Errors
/// The first that still has something in its way at the end of `timeout`, or of which that
/// cannot be known.
pub async fn wait_free(refusals: &[Refusal], timeout: Duration) -> Result<(), NotFree> {
    let host = Host::current();
    let deadline = Instant::now() + timeout;
    loop {
        let mut held = None;
        for refusal in refusals {
            match stands(&host, refusal) {
                Standing::Free => {}
                Standing::Held => {
                    held = Some(refusal);
                    break;
                }
                Standing::Unknown(why) => return Err(NotFree::Unknown(refusal.clone(), why)),
            }
        }
        let Some(held) = held else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(NotFree::Held(held.clone()));
        }
        sleep(INTERVAL).await;
    }
}

/// Whether a socket on the port refuses the bind, or may do so for all that is known.
/// Sockets of a kind that cannot be listed hold nobody up.
fn stands(host: &Host, refusal: &Refusal) -> Standing {
    let mut diag = match enter_again(host, refusal.netns, Instant::now() + LOOK) {
        Again::There(diag) => diag,
        Again::Gone => return Standing::Free,
        Again::Unknown(why) => return Standing::Unknown(why),
    };
    let is_held = queries(refusal.failure.protocol).into_iter().any(|query| {
        let mut held = false;
        let refuses = |entry: Entry| held |= refuses(host, refusal, entry.into());
        // Of a walk that was torn the next time gives the rest.
        let deadline = Instant::now() + LOOK;
        if let Err(error) = dump_once(&mut *diag, query, refusal.failure.port, deadline, refuses) {
            tracing::warn!(%error, "port {} is taken to be free", refusal.failure.port);
        }
        held
    });
    if is_held { Standing::Held } else { Standing::Free }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{enrich::netns::again::Known, evidence::Failure};

    #[test]
    fn a_namespace_that_is_a_gap_is_not_taken_for_the_agents_own() {
        let failure = Failure::untried(Protocol::Tcp, [127, 0, 0, 1].into(), 80, false);
        let netns = Known { inode: None, cookie: None };
        let refusal = Refusal { failure, netns, reuseaddr: None };
        let stands = stands(&Host::current(), &refusal);
        assert!(matches!(&stands, Standing::Unknown(why) if why.contains("is not known")));
    }
}
