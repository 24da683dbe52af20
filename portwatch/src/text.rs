//! Text from outside: how much room it takes, and what of it may be shown as it is.

pub mod bounds;
pub mod sanitize;
