//! The kernel's bind-conflict rules as pure functions: would this socket have
//! refused that bind, and by which clause?
//!
//! | room | what is in it |
//! |---|---|
//! | [`kernel`] | what differs between kernels, as one value |
//! | [`address`] | how two addresses meet |
//! | [`rule`] | one socket against another: [`rule::refuses`] for TCP, [`rule::meet`] for UDP |
//! | [`bucket`] | TCP's memory of a port, which lets binds pass that the rule would refuse |
//! | [`udp`] | the order in which UDP asks the sockets on a port |
//! | [`evidence`] | the rule applied to what is known of a refused bind: [`judge`] |
//!
//! Sources, read in 5.10 to 7.3: net/ipv4/inet_connection_sock.c,
//! net/ipv4/inet_hashtables.c, net/ipv4/udp.c, net/core/sock_reuseport.c. The
//! model is held against the running kernel by the differential test
//! (tests/differential).

pub mod address;
pub mod bucket;
pub mod evidence;
pub mod kernel;
pub mod rule;
pub mod udp;

pub use address::Overlap;
pub use evidence::{Verdict, clause, judge, judge_on, on_one_device_only, overlap};
pub use kernel::Kernel;
pub use rule::Clause;

#[cfg(test)]
mod tests;
