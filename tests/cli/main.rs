//! The command line: user errors, missing features of a machine, and what `portwatch` prints
//! about them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic fails the test and says where"
)]

mod closed;
mod config;
mod deprived;
mod doctor;
mod history;
mod kernel;
mod redaction;
mod replay;
mod rights;
mod schema;
mod shells;
mod usage;
