//! What every error that ends the program provides: a hint that says what to do, and the exit
//! code for its kind. Each error type implements both where it is defined, and only such errors
//! can end the command line.

/// The tool failed.
pub const FAILED: u8 = 1;
/// A usage error.
pub const USAGE: u8 = 2;
/// The port is in use.
pub const HELD: u8 = 3;
/// Permissions are missing.
pub const NOT_PERMITTED: u8 = 4;

/// An error with advice.
pub trait Advised: std::error::Error + Send + Sync + 'static {
    /// Returns what to do, as printed after `hint:`.
    fn hint(&self) -> &'static str;

    /// Returns the exit code for its kind.
    fn exit_code(&self) -> u8 {
        FAILED
    }
}
