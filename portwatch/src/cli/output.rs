//! The sinks that settings stand for.

use crate::{
    config::Settings,
    sinks::{Placed, Table},
};

use super::{error::Failure, streams::Stream};

/// Opens what is set.
pub fn open(settings: &Settings) -> Result<Vec<Placed>, Failure> {
    settings.sinks().iter().map(|sink| open_one(sink, Stream::Stdout)).collect()
}

/// Opens one that writes to `out`, unless it writes elsewhere.
pub fn open_one(sink: &Table, out: Stream) -> Result<Placed, Failure> {
    Ok(sink.open(out, out.colour())?)
}
