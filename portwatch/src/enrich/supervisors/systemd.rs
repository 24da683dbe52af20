//! Asks systemd about its units (`org.freedesktop.systemd1(5)`): whether a service is
//! restarted, which processes it has, and where `.socket` units listen.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::cut;
use crate::{enrich::host::Host, evidence::ExitCode};

mod bounded;
mod listen;
mod manager;

pub use listen::{Listener, listening_unit};
use manager::{Manager, OpenError};

/// Time limit for the answer of one manager. A manager that is busy or hangs does not use up
/// the time for the others.
const PATIENCE: Duration = Duration::from_millis(100);
/// The most `.socket` units that are examined.
const MOST_UNITS: usize = 256;

const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const SOCKET: &str = "org.freedesktop.systemd1.Socket";

/// What its manager reports about a `.service` unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `Restart=`: `no`, `on-failure`, `always` …
    pub restart: String,
    /// `NRestarts`; `None` before systemd 235.
    pub restarts: Option<u32>,
    /// The process of a user's manager; `None` for the system's.
    pub manager: Option<u32>,
    /// Its processes.
    pub run: Run,
    /// When the manager was asked.
    pub asked: Timestamp,
}

/// What its manager reports about a unit's processes. A value that it does not know is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// `MainPID`; 0 means none.
    pub main_pid: Option<u32>,
    /// `ControlPID`; 0 means none.
    pub control_pid: Option<u32>,
    /// `ActiveState`.
    pub state: Option<String>,
    /// `Result`.
    pub result: Option<String>,
    /// `ExecMainCode` and `ExecMainStatus` of a main process that has exited.
    pub exit: Option<(ExitCode, i32)>,
}

/// Why there is no answer. Texts from outside are limited in length, because they are kept for
/// a while.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// No time is left to ask.
    #[error("systemd: no time was left to ask")]
    NoTime,
    /// The manager cannot be reached.
    #[error("systemd: its own socket: {own}; the bus: {bus}")]
    Unreachable {
        /// Why its own socket cannot be used.
        own: OpenError,
        /// Why the bus cannot be used.
        bus: OpenError,
    },
    /// It did not answer in time.
    #[error("systemd: {0}")]
    Silent(#[source] Arc<io::Error>),
    /// The connection was closed.
    #[error("systemd: {why}")]
    Broken {
        /// The error of the D-Bus library.
        why: String,
    },
    /// It does not permit this.
    #[error("systemd: {answer}")]
    Denied {
        /// What it says.
        answer: String,
    },
    /// It rejected the request.
    #[error("systemd: {answer}")]
    Refused {
        /// The error that it returned.
        answer: String,
    },
}

/// Returns whether the host runs systemd, by the check of `sd_booted(3)`.
pub fn is_running(host: &Host) -> bool {
    host.run_root.join("systemd/system").is_dir()
}

/// Asks the system's manager (`owner` is `None`) or a user's manager about a `.service` unit.
/// This takes one round trip after the handshake. It reads single properties, because a request
/// for all of them would make systemd read the unit's accounting as well.
///
/// # Errors
/// The manager cannot be reached, is too slow, or does not know the unit.
pub fn service(
    host: &Host,
    owner: Option<u32>,
    unit: &str,
    deadline: Instant,
) -> Result<Service, Failure> {
    let path = object_path(unit);
    within(host, deadline, async {
        let manager = Manager::connect(host, owner).await?;
        let asked = Timestamp::now();
        let (restart, restarts, main_pid, control_pid, state, result, code, status) = tokio::join!(
            manager.property::<String>(&path, SERVICE, "Restart"),
            manager.property::<u32>(&path, SERVICE, "NRestarts"),
            manager.property::<u32>(&path, SERVICE, "MainPID"),
            manager.property::<u32>(&path, SERVICE, "ControlPID"),
            manager.property::<String>(&path, UNIT, "ActiveState"),
            manager.property::<String>(&path, SERVICE, "Result"),
            manager.property::<i32>(&path, SERVICE, "ExecMainCode"),
            manager.property::<i32>(&path, SERVICE, "ExecMainStatus"),
        );
        let pid = owner.and(manager.pid);
        manager.leave().await;
        let run = Run {
            main_pid: main_pid.ok(),
            control_pid: control_pid.ok(),
            state: state.ok().as_deref().map(cut),
            result: result.ok().as_deref().map(cut),
            exit: code.ok().and_then(exit_code).zip(status.ok()),
        };
        Ok(Service { restart: cut(&restart?), restarts: restarts.ok(), manager: pid, run, asked })
    })
}

/// A manager's answer about a service after one of its processes has exited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfterExit {
    /// `Result`: `success`, `exit-code`, `start-limit-hit` …
    pub result: String,
    /// `NRestarts`; `None` before systemd 235.
    pub restarts: Option<u32>,
    /// `ActiveState`: `active`, `activating`, `inactive`, `failed` …
    pub state: String,
    /// `MainPID`; 0 means none.
    pub main_pid: Option<u32>,
}

/// Asks about a service whose process has exited, as [`service`] does.
///
/// # Errors
/// The same as those of [`service`].
pub fn after_exit(
    host: &Host,
    owner: Option<u32>,
    unit: &str,
    deadline: Instant,
) -> Result<AfterExit, Failure> {
    let path = object_path(unit);
    within(host, deadline, async {
        let manager = Manager::connect(host, owner).await?;
        let (result, restarts, state, main_pid) = tokio::join!(
            manager.property::<String>(&path, SERVICE, "Result"),
            manager.property::<u32>(&path, SERVICE, "NRestarts"),
            manager.property::<String>(&path, UNIT, "ActiveState"),
            manager.property::<u32>(&path, SERVICE, "MainPID"),
        );
        manager.leave().await;
        let (result, state) = (cut(&result?), cut(&state?));
        Ok(AfterExit { result, restarts: restarts.ok(), state, main_pid: main_pid.ok() })
    })
}

/// Stops units one after the other, and waits for their jobs. Returns the results of the jobs,
/// up to the first that is not `done`.
///
/// # Errors
/// The manager cannot be reached, refuses, or needs more time.
pub fn stop(
    host: &Host,
    owner: Option<u32>,
    units: &[String],
    deadline: Instant,
) -> Result<Vec<String>, Failure> {
    let stopped = host.within(deadline, async {
        let manager = Manager::connect(host, owner).await?;
        manager.subscribe().await?;
        let mut results = Vec::new();
        for unit in units {
            let result = manager.stop(unit).await?;
            let is_done = result == "done";
            results.push(result);
            if !is_done {
                break;
            }
        }
        manager.leave().await;
        Ok(results)
    });
    stopped.unwrap_or_else(|error| Err(Failure::Silent(error.into())))
}

/// Converts `si_code` of SIGCHLD (`sigaction(2)`); 0 means that the main process has not
/// exited.
fn exit_code(code: i32) -> Option<ExitCode> {
    match code {
        1 => Some(ExitCode::Exited),
        2 => Some(ExitCode::Killed),
        3 => Some(ExitCode::Dumped),
        _ => None,
    }
}

/// The states of `.socket` units that listen.
pub const LISTENING: &[&str] = &["active"];
/// The states of `.socket` units whose bind may just have failed: they fail at once, or first
/// run the commands that belong to starting or stopping them.
pub const REFUSED: &[&str] = &["failed", "activating", "deactivating"];

/// Returns where the `.socket` units of the system's manager that are in one of these states
/// listen, or would listen.
///
/// # Errors
/// The manager cannot be reached or is too slow.
pub fn listeners(
    host: &Host,
    states: &[&str],
    deadline: Instant,
) -> Result<Vec<Listener>, Failure> {
    within(host, deadline, async {
        let manager = Manager::connect(host, None).await?;
        let mut listeners = Vec::new();
        for (unit, path) in manager.sockets(states).await?.into_iter().take(MOST_UNITS) {
            match manager.property::<Vec<(String, String)>>(&path, SOCKET, "Listen").await {
                Ok(listen) => listeners.extend(listen::parse(&unit, &listen)),
                // It was unloaded after the listing.
                Err(Failure::Refused { .. }) => {}
                Err(unreachable) => return Err(unreachable),
            }
        }
        manager.leave().await;
        Ok(listeners)
    })
}

fn within<T>(
    host: &Host,
    deadline: Instant,
    conversation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let now = Instant::now();
    // If there is more time, the manager gets its usual share of it.
    let share = deadline.saturating_duration_since(now) * 2 / 5;
    let deadline = deadline.min(now + share.max(PATIENCE));
    host.within(deadline, conversation).unwrap_or_else(|error| Err(Failure::Silent(error.into())))
}

/// Returns the object path of a unit: its name, in which every byte except letters and digits,
/// and a digit at the start, becomes `_` and two hexadecimal digits (`sd_bus_path_encode(3)`).
fn object_path(unit: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    if unit.is_empty() {
        path.push('_');
    }
    for (place, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && place > 0) {
            path.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_process_that_runs_has_no_exit_code() {
        let codes = [0, 1, 2, 3, 4, -1].map(exit_code);
        let [exited, killed, dumped] = [ExitCode::Exited, ExitCode::Killed, ExitCode::Dumped];
        assert_eq!(codes, [None, Some(exited), Some(killed), Some(dumped), None, None]);
    }

    #[test]
    fn unit_names_are_escaped() {
        let escaped = |unit| object_path(unit).rsplit('/').next().unwrap().to_owned();
        assert_eq!(escaped("web@1.service"), "web_401_2eservice");
        assert_eq!(escaped("9p.service"), "_39p_2eservice");
        assert_eq!(escaped("a-b_c.socket"), "a_2db_5fc_2esocket");
        assert_eq!(escaped("ü"), "_c3_bc");
        assert_eq!(escaped(""), "_");
    }
}
