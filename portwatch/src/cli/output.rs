//! The sinks that settings stand for.

use std::io;

use crate::{
    capture::{self, Limits, writer::Capture},
    config::Settings,
    sinks::{
        Format, Place, Sink, human::Human, journald::Journald, json::Json, markdown::Markdown,
    },
};

use super::error::UsageError;

/// Opens what is set.
pub fn open(settings: &Settings) -> anyhow::Result<Vec<(Place, Box<dyn Sink>)>> {
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
pub fn open_formats(formats: &[Format]) -> anyhow::Result<Vec<(Place, Box<dyn Sink>)>> {
    check_formats(formats)?;
    let sinks = formats.iter().map(|format| -> (Place, Box<dyn Sink>) {
        match format {
            Format::Human => (Place("sink.human"), Box::new(Human::new(io::stdout()))),
            Format::Json => (Place("sink.json"), Box::new(Json::new(io::stdout()))),
            Format::Markdown => (Place("sink.markdown"), Box::new(Markdown::new(io::stdout()))),
            Format::Journald => (Place("sink.journald"), Box::new(Journald)),
        }
    });
    Ok(sinks.collect())
}
