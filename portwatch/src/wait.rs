//! Waits until ports are free, or until something listens on them.
//!
//! [`watch`] says when something may have changed, [`look`] lists what is on a
//! port and decides, [`pace`] says when to look without being told. An event
//! never decides: it may come a moment before the port is free, and what it
//! does not tell (the end of TIME-WAIT) is still seen.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::time::{sleep_until, timeout_at};

use crate::{
    advice::Advised,
    conflict::Kernel,
    enrich::{
        host::{DiagSocket, Host, NetnsRef},
        netns::again::{Again, NotEntered, enter_again},
        sockets::ListError,
    },
};

pub mod look;
pub mod pace;
pub mod watch;

use look::{Asked, Standing};
use pace::Pace;
use watch::Watch;

/// How long a way into a namespace is looked for.
const ENTERING: Duration = Duration::from_secs(1);

/// Why the wait cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// sock_diag cannot be had.
    #[error("failed to open sock_diag, the kernel's socket listing")]
    Open(#[source] io::Error),
    /// It is not known where to look.
    #[error("{why}")]
    Place {
        /// The port.
        port: u16,
        /// What became of the namespace.
        why: NotEntered,
    },
    /// sock_diag does not list.
    #[error("failed to list the sockets on port {port}: {why}")]
    List {
        /// The port.
        port: u16,
        /// Why not.
        why: ListError,
    },
}

impl WaitError {
    /// The port that it is about; `None` for all of them.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Open(_) => None,
            Self::Place { port, .. } | Self::List { port, .. } => Some(*port),
        }
    }
}

impl Advised for WaitError {
    fn hint(&self) -> &'static str {
        "run portwatch doctor to see what the kernel and the permissions allow"
    }
}

/// A port and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What is asked of it.
    pub asked: Asked,
    /// As it was found last.
    pub standing: Standing,
    /// How long it took until the condition held, as it still does.
    pub met_after: Option<Duration>,
}

/// How the ports stand after some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// In the order in which they were asked for.
    pub ports: Vec<Port>,
    /// The time since the beginning.
    pub waited: Duration,
}

impl State {
    /// Whether nothing is left to wait for.
    pub fn is_met(&self) -> bool {
        self.ports.iter().all(|port| port.standing.met)
    }
}

/// Waits until the condition holds for all ports at once, or for `timeout`; zero
/// looks once. `tell` is called after each look that may have found something new.
///
/// # Errors
/// The kernel does not list its sockets.
pub async fn wait(
    host: &Host,
    asked: &[Asked],
    timeout: Duration,
    mut tell: impl FnMut(&State),
) -> Result<State, WaitError> {
    let begin = Instant::now();
    // What is too far off to be told from never is not waited for exactly.
    let deadline = begin + timeout.min(Duration::from_secs(u32::MAX.into()));
    // Before the first look, so that nothing falls between.
    let mut watch = Watch::of(asked);
    let mut eye = Eye::open(host)?;
    let mut state = State { ports: Vec::new(), waited: Duration::ZERO };
    for asked in asked {
        let port = Port { asked: asked.clone(), standing: eye.look(asked)?, met_after: None };
        state.ports.push(port);
    }
    let mut pace = Pace::default();
    let mut rested = begin;
    loop {
        let now = Instant::now();
        state.waited = now - begin;
        for port in &mut state.ports {
            let since = port.met_after.unwrap_or(state.waited);
            port.met_after = port.standing.met.then_some(since);
        }
        if state.is_met() || now >= deadline {
            return Ok(state);
        }
        tell(&state);
        let next = now + pace.next(watch.tells(), ends_in(&state));
        let told = timeout_at(next.min(deadline).into(), watch.event()).await.is_ok();
        // Events may come faster than they can be followed.
        sleep_until(rested.min(deadline).into()).await;
        let looking = Instant::now();
        // What each connection's end brings is not worth a walk over all sockets
        // while there is a listener; the slow looks find the rest.
        let thorough = pace.wakes(told, looking - now);
        for port in &mut state.ports {
            port.standing = eye.look_again(&port.asked, &port.standing, thorough)?;
        }
        rested = Pace::rested(looking, Instant::now());
    }
}

/// When nothing is in the way any more by the kernel's own timers alone.
fn ends_in(state: &State) -> Option<Duration> {
    let unmet = state.ports.iter().filter(|port| !port.standing.met);
    unmet
        .map(|port| port.standing.ends_in)
        .try_fold(Duration::ZERO, |longest, ends_in| Some(longest.max(ends_in?)))
}

/// Looks at ports, by a sock_diag socket that is made anew when it has failed.
struct Eye<'a> {
    host: &'a Host,
    kernel: Kernel,
    diag: Box<dyn DiagSocket>,
}

impl<'a> Eye<'a> {
    fn open(host: &'a Host) -> Result<Self, WaitError> {
        let diag = host.sock_diag(&NetnsRef::Own).map_err(WaitError::Open)?;
        Ok(Self { host, kernel: Kernel::of(&host.release), diag })
    }

    fn look(&mut self, asked: &Asked) -> Result<Standing, WaitError> {
        let kernel = self.kernel;
        self.retried(asked, |diag| look::look(diag, kernel, asked))
    }

    /// Where listeners alone tell that nothing has changed, that is the answer.
    fn look_again(
        &mut self,
        asked: &Asked,
        before: &Standing,
        thorough: bool,
    ) -> Result<Standing, WaitError> {
        let kernel = self.kernel;
        if !thorough && !before.met && asked.is_tcp() {
            let listeners = self.retried(asked, |diag| look::listeners(diag, kernel, asked))?;
            match (asked.is_free(), listeners.met) {
                (_, false) => return Ok(before.clone()),
                (false, true) => return Ok(listeners),
                (true, true) => {}
            }
        }
        self.look(asked)
    }

    /// Once more, on a new socket: an old one may have a part of a reply left. In another
    /// namespace each socket is a new one, because the namespace may be gone by then, and
    /// all its sockets with it.
    fn retried(
        &mut self,
        asked: &Asked,
        look: impl Fn(&mut dyn DiagSocket) -> Result<Standing, ListError>,
    ) -> Result<Standing, WaitError> {
        let port = asked.port();
        if let Asked::FreeAgain(failed) = asked {
            return match enter_again(self.host, failed.netns, Instant::now() + ENTERING) {
                Ok(Again::There(mut diag)) => {
                    look(diag.as_mut()).map_err(|why| WaitError::List { port, why })
                }
                Ok(Again::Gone) => Ok(Standing { met: true, ..Standing::default() }),
                Err(why) => Err(WaitError::Place { port, why }),
            };
        }
        if let Ok(standing) = look(self.diag.as_mut()) {
            return Ok(standing);
        }
        self.diag = self.host.sock_diag(&NetnsRef::Own).map_err(WaitError::Open)?;
        look(self.diag.as_mut()).map_err(|why| WaitError::List { port, why })
    }
}
