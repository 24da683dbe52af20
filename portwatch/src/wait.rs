//! Waits until ports are free, or until a socket is listening on them.
//!
//! [`watch`] reports when something may have changed, [`look`] lists the sockets on a port and
//! decides, [`pace`] says when to check without an event. An event never decides: it may
//! arrive a moment before the port is free, and the end of TIME-WAIT has no event.

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
        options,
        sockets::ListError,
    },
    evidence::Socket,
    kernel::records,
};

pub mod look;
pub mod pace;
pub mod watch;

use look::{Asked, Sources, Standing};
use pace::Pace;
use watch::Watch;

/// Time limit to find a namespace.
const ENTERING: Duration = Duration::from_secs(1);
/// Time limit to find the processes that have connections on the port open.
const ASKING: Duration = Duration::from_secs(1);

/// Why the wait cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// sock_diag is not available.
    #[error("failed to open sock_diag, the kernel's socket listing")]
    Open(#[source] io::Error),
    /// The namespace is not known.
    #[error("{why}")]
    Place {
        /// The port.
        port: u16,
        /// Why the namespace could not be entered.
        why: NotEntered,
    },
    /// sock_diag returned an error.
    #[error("failed to list the sockets on port {port}: {why}")]
    List {
        /// The port.
        port: u16,
        /// The reason.
        why: ListError,
    },
}

impl WaitError {
    /// Returns the port of the error; `None` if it affects all of them.
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

/// A port and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port and the condition.
    pub asked: Asked,
    /// The last result.
    pub standing: Standing,
    /// Time until the condition was met, if it still is.
    pub met_after: Option<Duration>,
}

/// The state of all ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// In the order of the command line.
    pub ports: Vec<Port>,
    /// The time since the beginning.
    pub waited: Duration,
}

impl State {
    /// Returns whether all conditions are met.
    pub fn is_met(&self) -> bool {
        self.ports.iter().all(|port| port.standing.met)
    }
}

/// Waits until the condition is met for all ports at once, or for `timeout`; zero checks once.
/// `tell` is called after each check that may have a new result.
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
    // Limits the timeout, so that the addition cannot overflow; nobody waits that long.
    let deadline = begin + timeout.min(Duration::from_secs(u32::MAX.into()));
    // Before the first check, so that no change falls in between.
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
        // Events may arrive faster than they can be processed.
        sleep_until(rested.min(deadline).into()).await;
        let looking = Instant::now();
        // While there is a listener, the end of a connection does not justify a walk over all
        // sockets. The slow checks find the remaining changes.
        let thorough = pace.wakes(told, looking - now);
        for port in &mut state.ports {
            port.standing = eye.look_again(&port.asked, &port.standing, thorough)?;
        }
        rested = Pace::rested(looking, Instant::now());
    }
}

/// Returns when the kernel's own timers alone end all that blocks.
fn ends_in(state: &State) -> Option<Duration> {
    let unmet = state.ports.iter().filter(|port| !port.standing.met);
    unmet
        .map(|port| port.standing.ends_in)
        .try_fold(Duration::ZERO, |longest, ends_in| Some(longest.max(ends_in?)))
}

/// Checks ports, with a sock_diag socket that is opened again after an error.
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
        let (host, kernel) = (self.host, self.kernel);
        let current = |sockets: &mut [Socket]| {
            options::ask_holders(host, sockets, Instant::now() + ASKING);
        };
        let sources = Sources { records: records::of_running_agent, current: &current };
        self.retried(asked, |diag| look::look(diag, sources, kernel, asked))
    }

    /// Checks the listeners only, if they alone show that nothing has changed; otherwise all
    /// sockets.
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

    /// Repeats the check on a new socket, because the old one may still contain part of a
    /// reply. In another namespace every socket is new: the namespace and all its sockets may
    /// have been removed by then.
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
