//! Waits until a bind would succeed, and notices that somebody else has the port.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    enrich::host::Host,
    evidence::{State as SocketState, TimeWait},
    explain::Question,
    wait::{State, WaitError, look::Asked, wait},
};

/// How long another socket must have the port, so that one which is about to be closed is not
/// taken for somebody else's.
const STAYS: Duration = Duration::from_millis(500);

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A bind would succeed.
    Free,
    /// A socket blocks it that the steps do not close.
    Another,
    /// The time is up.
    TimedOut,
}

/// What was seen meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// How it ended.
    pub end: End,
    /// The most TIME-WAIT entries that blocked the bind at one time.
    pub time_wait: TimeWait,
}

/// Waits. The steps close the sockets with these inodes.
///
/// # Errors
/// The kernel does not list its sockets.
pub async fn until_free(
    host: &Host,
    question: &Question,
    inodes: &BTreeSet<u64>,
    limit: Duration,
    mut tell: impl FnMut(&State),
) -> Result<Proof, WaitError> {
    let asked = [Asked::Free(question.clone())];
    let another = Notify::new();
    let mut time_wait = TimeWait::default();
    let mut since = None;
    let look = |state: &State| {
        tell(state);
        let Some(port) = state.ports.first() else { return };
        let (count, max_remaining_ms) = port.standing.time_wait();
        if count > time_wait.count {
            time_wait = TimeWait { count, max_remaining_ms, ..TimeWait::default() };
        }
        if !is_another(state, inodes) {
            since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() >= STAYS {
            another.notify_one();
        }
    };
    let end = tokio::select! {
        biased;
        state = wait(host, &asked, limit, look) => match state?.is_met() {
            true => End::Free,
            false => End::TimedOut,
        },
        () = another.notified() => End::Another,
    };
    Ok(Proof { end, time_wait })
}

/// Whether a socket has the port that a process has open and the steps do not close.
fn is_another(state: &State, inodes: &BTreeSet<u64>) -> bool {
    let kinds = state.ports.iter().flat_map(|port| &port.standing.kinds);
    let mut open = kinds.filter(|(state, _)| {
        matches!(state, SocketState::Listen | SocketState::Bound | SocketState::Unconn)
    });
    open.any(|(_, kind)| kind.example.inode.is_some_and(|inode| !inodes.contains(&inode)))
}
