//! The sinks that settings stand for.

use crate::{
    config::Settings,
    sinks::{Place, Sink, Table},
};

use super::{error::Failure, streams::Stream};

/// Opens what is set; `place` says where the losses of each are counted.
pub fn open(settings: &Settings) -> Result<Vec<(Place, Box<dyn Sink>)>, Failure> {
    settings.sinks().iter().map(|sink| open_one(sink, Stream::Stdout)).collect()
}

/// Opens one that writes to `out`, unless it writes elsewhere.
pub fn open_one(sink: &Table, out: Stream) -> Result<(Place, Box<dyn Sink>), Failure> {
    Ok(sink.open(out, out.colour())?)
}
