//! portwatch catches every EADDRINUSE at the moment the kernel returns it, and reports which
//! process has the port open, which socket blocks the bind by which rule of the kernel, and
//! what to do.
//!
//! Data flows one way: [`kernel`] → [`decode`] → [`enrich`] → [`mod@diagnose`] → [`sinks`],
//! connected by [`pipeline`].

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a test that panics has failed, which is what it is for"
    )
)]

pub mod advice;
pub mod agents;
pub mod cli;
pub mod config;
pub mod conflict;
pub mod decode;
pub mod diagnose;
pub mod engines;
pub mod enrich;
pub mod event;
pub mod evidence;
pub mod exec;
pub mod explain;
pub mod free;
pub mod history;
pub mod interpreters;
pub mod kernel;
pub mod losses;
pub mod memory;
pub mod metrics;
pub mod pipeline;
mod proc;
pub mod redact;
pub mod replay;
pub mod roles;
pub mod shared;
pub mod sinks;
pub mod supervisors;
pub mod talk;
pub mod text;
pub mod units;
pub mod values;
pub mod wait;
pub mod watch;

#[cfg(test)]
mod hostile;
