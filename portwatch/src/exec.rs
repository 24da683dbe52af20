//! A command that is run and watched: it and all that it starts are told of their
//! refused binds, and it notices nothing else.
//!
//! | room | what passes through it |
//! |---|---|
//! | [`signals`] | what is sent to this process while the command runs |
//! | [`child`] | the command, from its start to its end |
//! | [`guardian`] | the process that ends the command where this one is killed |
//! | [`descent`] | whether a process comes of this one |
//! | [`refused`] | the ports that it was refused |

pub mod child;
pub mod descent;
pub mod guardian;
pub mod refused;
pub mod signals;
