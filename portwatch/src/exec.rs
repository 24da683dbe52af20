//! Runs and watches a command: reports the failed binds of the command and its
//! descendants, and does not disturb them.
//!
//! | module | what it does |
//! |---|---|
//! | [`signals`] | receives the signals to this process while the command runs |
//! | [`child`] | starts the command, and waits for its end |
//! | [`guardian`] | ends the command if this process is killed |
//! | [`descent`] | finds out whether a process descends from this one |
//! | [`refused`] | collects the ports that the command could not bind |

pub mod child;
pub mod descent;
pub mod guardian;
pub mod refused;
pub mod signals;
