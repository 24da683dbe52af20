//! What every error that ends the program brings along: what to do about it, and the
//! exit code for its kind. Said where the error is made; the command line can only be
//! ended by one that says it.

/// The tool failed.
pub const FAILED: u8 = 1;
/// It was asked for what makes no sense.
pub const USAGE: u8 = 2;
/// The port is held.
pub const HELD: u8 = 3;
/// Rights are missing.
pub const NOT_PERMITTED: u8 = 4;

/// An error that says what to do.
pub trait Advised: std::error::Error + Send + Sync + 'static {
    /// What to do, as it stands behind `hint:`.
    fn hint(&self) -> &'static str;

    /// The exit code for its kind.
    fn exit_code(&self) -> u8 {
        FAILED
    }
}
