//! The sinks of the settings.

use crate::{
    config::Settings,
    sinks::{Placed, Table},
};

use super::{error::Failure, streams::Stream};

/// Opens all sinks of the settings.
pub fn open(settings: &Settings) -> Result<Vec<Placed>, Failure> {
    settings.sinks().iter().map(|sink| open_one(sink, Stream::Stdout)).collect()
}

/// Opens one. It writes to `out`, unless it has an output of its own.
pub fn open_one(sink: &Table, out: Stream) -> Result<Placed, Failure> {
    Ok(sink.open(out, out.colour())?)
}
