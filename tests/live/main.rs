//! Real processes fail to bind ports on the running kernel, and the agent must report why. One
//! file per topic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test and says where"
)]

mod bound_only;
mod capture;
mod causes;
mod classes;
mod clock;
mod closed;
mod commands;
mod containers;
mod cost;
mod deaf;
#[cfg(target_arch = "aarch64")]
mod eabi;
mod exec;
mod explain;
mod fairness;
mod faults;
mod filter;
mod forged;
mod free;
mod gone;
mod holder;
mod hooks;
mod human;
mod journald;
mod kept;
mod latency;
mod lifecycle;
mod listen_stage;
mod load;
mod managers;
mod manners;
mod memory;
mod metrics;
mod netns;
mod outcome;
mod protocols;
mod readers;
mod redaction;
mod reports;
mod rights;
#[cfg(feature = "texts")]
mod schema;
mod seeded;
mod servers;
mod short_lived;
mod silence;
mod sinks;
mod storms;
mod systems;
mod tcp;
mod time_wait;
mod udp;
mod wait;
mod without_sock_diag;
