//! Asks service managers about a unit after one of its processes has exited, and has them stop
//! units. It runs on a thread of its own, because a manager may answer slowly.

use std::time::{Duration, Instant};

use super::{host::Host, supervisors::systemd};
pub use systemd::{AfterExit, Failure};

/// Time limit for one manager.
const PATIENCE: Duration = Duration::from_secs(1);

/// The managers of the system and of its users.
pub struct Managers(Host);

impl Managers {
    /// Returns the managers of the running host.
    pub fn current() -> Self {
        Self(Host::current())
    }

    /// Asks the manager that runs the unit.
    ///
    /// # Errors
    /// There is no systemd, or it does not answer.
    pub fn after_exit(&self, owner: Option<u32>, unit: &str) -> Result<AfterExit, Failure> {
        let deadline = Instant::now() + PATIENCE;
        systemd::after_exit(&self.0, owner, unit, deadline)
    }

    /// Stops units of the system (`owner` is `None`) or of a user, and waits for the jobs. Returns
    /// their results (JobRemoved in `org.freedesktop.systemd1(5)`).
    ///
    /// # Errors
    /// The manager cannot be reached, refuses, or needs more time.
    pub fn stop(
        &self,
        owner: Option<u32>,
        units: &[String],
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        systemd::stop(&self.0, owner, units, deadline)
    }

    /// Returns whether the host runs systemd at all.
    pub fn are_there(&self) -> bool {
        systemd::is_running(&self.0)
    }
}
