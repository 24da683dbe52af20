//! The sinks that settings stand for.

use crate::{
    capture::{self, Limits, writer::Capture},
    config::Settings,
    sinks::{
        Format, Place, Sink, human::Human, journald::Journald, json::Json, markdown::Markdown,
    },
};

use super::{
    error::{Failure, UsageError},
    streams::Stream,
};

/// Where records go, and under which name the losses of each are counted.
pub type Sinks = Vec<(Place, Box<dyn Sink>)>;

/// Opens what is set.
pub fn open(settings: &Settings) -> Result<Sinks, Failure> {
    let mut sinks = open_formats(&settings.format)?;
    if let Some(folder) = &settings.capture {
        let limits = Limits {
            file_size: settings.capture_file_size.0,
            file_age: settings.capture_file_age.0,
            total_size: settings.capture_size.0,
        };
        let capture = Capture::open(folder, limits)?;
        sinks.push((Place(capture::PLACE), Box::new(capture)));
    }
    Ok(sinks)
}

/// Whether the formats can be had together: one at most may write to stdout.
pub fn check_formats(formats: &[Format]) -> Result<(), UsageError> {
    let mut on_stdout = formats.iter().filter(|&&format| format != Format::Journald);
    match (on_stdout.next(), on_stdout.next()) {
        (Some(&one), Some(&other)) => Err(UsageError::TwiceOnStdout(one, other)),
        _ => Ok(()),
    }
}

/// One sink for each format.
pub fn open_formats(formats: &[Format]) -> Result<Sinks, UsageError> {
    check_formats(formats)?;
    let stdout = Stream::Stdout;
    let sinks = formats.iter().map(|format| -> (Place, Box<dyn Sink>) {
        match format {
            Format::Human => (Place("sink.human"), Box::new(Human::new(stdout, stdout.colour()))),
            Format::Json => (Place("sink.json"), Box::new(Json::new(stdout))),
            Format::Markdown => (Place("sink.markdown"), Box::new(Markdown::new(stdout))),
            Format::Journald => (Place("sink.journald"), Box::new(Journald)),
        }
    });
    Ok(sinks.collect())
}
