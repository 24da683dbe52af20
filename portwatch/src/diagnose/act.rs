//! What the command of a suggested action does, as data, for a program that does it itself.

use crate::{engines::Engine, evidence::Process};

/// An action. Its [`Move`](super::Move) has the same as a command for a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Processes are ended by signals, each by one that it reacts to.
    End(Vec<Process>),
    /// A shell that runs a loop is ended, and then the process that it started.
    EndLoop {
        /// The shell's pid. It is the parent of the process.
        shell: u32,
        /// The process.
        process: Box<Process>,
    },
    /// The service manager stops units, the system's or those of the user `owner`.
    StopUnits {
        /// The user whose manager runs them; `None` for the system's.
        owner: Option<u32>,
        /// The units, in the order in which they are to be stopped.
        units: Vec<String>,
    },
    /// The container engine stops a container.
    StopContainer {
        /// The engine.
        engine: Engine,
        /// The user who runs the engine; `None` for the system's.
        user: Option<u32>,
        /// The container's name or id, as the engine accepts it.
        container: String,
    },
    /// The manager's own command stops one of its jobs: the command as it is printed.
    Command,
}
