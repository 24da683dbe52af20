//! The records of the ring, of either kind.

use portwatch_common::Followed;

use super::{DecodeError, RawFailure, RawFollowed, decode, followed};

/// A record of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawRecord {
    /// A failed bind.
    Failure(Box<RawFailure>),
    /// An action of a followed process.
    Followed(RawFollowed),
}

/// Decodes one record of the ring. Its size says which kind it is.
///
/// # Errors
/// The bytes have neither size, or contain a value that the kernel side never writes.
pub fn record(bytes: &[u8]) -> Result<RawRecord, DecodeError> {
    if bytes.len() == size_of::<Followed>() {
        return followed::decode(bytes).map(RawRecord::Followed);
    }
    decode(bytes).map(|raw| RawRecord::Failure(Box::new(raw)))
}
