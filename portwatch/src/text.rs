//! Text from outside: its size, and the escapes for what must not be shown as it is.

pub mod bounds;
pub mod sanitize;
