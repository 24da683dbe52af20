//! Text from outside: limits of its size, and escapes for characters that must not be printed.

pub mod bounds;
pub mod sanitize;
