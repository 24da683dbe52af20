//! The kernel's bind conflict rules as pure functions: would this socket have blocked that
//! bind, and by which rule?
//!
//! | module | content |
//! |---|---|
//! | [`kernel`] | the differences between kernels, as one value |
//! | [`address`] | how two addresses overlap |
//! | [`rule`] | compares two known sockets: [`rule::tcp_refuses`], [`rule::udp_refuses`] |
//! | [`evidence`] | the rule applied to what is known about a failed bind: [`judge`] |
//! | [`outcome`] | whether a bind that no process has attempted would succeed: [`Outcome::of`] |
//!
//! Sources, read in 5.10 to 7.3: net/ipv4/inet_connection_sock.c, net/ipv4/inet_hashtables.c,
//! net/ipv4/udp.c, net/core/sock_reuseport.c. The differential test (tests/differential)
//! compares the rules with the running kernel. Some decisions also depend on state that is not
//! visible from outside (TCP's state of a port, the order in which UDP compares the sockets,
//! SO_REUSEPORT groups). Only that test models this state.

pub mod address;
pub mod evidence;
pub mod kernel;
pub mod outcome;
pub mod rule;

pub use address::Overlap;
pub use evidence::{Verdict, clause, judge, overlap};
pub use kernel::Kernel;
pub use outcome::Outcome;
pub use rule::Clause;

#[cfg(test)]
mod tests;
