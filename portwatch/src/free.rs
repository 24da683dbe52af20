//! Takes a port back: the plan that a diagnosis suggests, the action, and what came of it.
//!
//! [`plan`] is pure and decides what may be done. [`act`] does it: by the manager that is
//! responsible, and by a signal where nobody is. The record of it is
//! [`Action`](crate::event::action::Action).

pub mod act;
pub mod plan;
pub mod proof;
pub mod signals;
