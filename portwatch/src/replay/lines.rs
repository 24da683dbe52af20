//! Splits bytes into lines with their positions. Total: any bytes result in lines or in errors
//! with a position.

use std::{
    io::{self, BufRead},
    string::FromUtf8Error,
};

use serde::Deserialize;
use serde_json::Value;

use super::{BadLine, sources::Opened};
use crate::{event::read::LONGEST, sinks::journald};

/// Reads a source line by line.
pub struct Lines {
    opened: Opened,
    number: u64,
    /// The current line, if it is not contiguous in the buffer.
    line: Vec<u8>,
    /// Otherwise the length of the line in the buffer, including its line feed. The line is
    /// consumed when the next one is read.
    buffered: usize,
    text: String,
    ended: bool,
}

impl Lines {
    /// Starts at the first line.
    pub fn of(opened: Opened) -> Self {
        Self { opened, number: 0, line: Vec::new(), buffered: 0, text: String::new(), ended: false }
    }

    /// Returns the next line's record as text, or `None` at the end. An error affects one line,
    /// and the next line may be valid. Empty lines are skipped.
    pub fn advance(&mut self) -> Option<Result<&str, BadLine>> {
        loop {
            if self.ended {
                return None;
            }
            self.number += 1;
            let whole = match self.read_line() {
                Ok(whole) => whole,
                Err(error) => {
                    // It is unknown what follows bytes that cannot be read.
                    self.ended = true;
                    return Some(Err(self.bad(error.to_string())));
                }
            };
            match whole {
                Read::Buffered => break,
                Read::End => return None,
                Read::TooLong => {
                    return Some(Err(self.bad(format!("longer than {LONGEST} bytes"))));
                }
                Read::Torn if !self.opened.journal && !is_complete(&self.line) => {
                    let why = "the last line is incomplete and was skipped";
                    self.ended = true;
                    return Some(Err(self.bad(why.to_owned())));
                }
                Read::Whole | Read::Torn if self.line.trim_ascii().is_empty() => {}
                Read::Whole | Read::Torn => break,
            }
        }
        Some(self.record())
    }

    /// Returns an error with the number of the current line.
    pub fn bad(&self, why: impl Into<String>) -> BadLine {
        BadLine { name: self.opened.name.clone(), line: self.number, why: why.into() }
    }

    /// Returns whether the error was about an unfinished last line, which SIGKILL or a power
    /// loss may leave.
    pub fn ended_torn(&self) -> bool {
        self.ended && !self.line.is_empty()
    }

    fn record(&mut self) -> Result<&str, BadLine> {
        let Self { opened, number, line, buffered, text, .. } = self;
        let bad = |why: String| BadLine { name: opened.name.clone(), line: *number, why };
        let bytes = match *buffered {
            0 => line.as_slice(),
            // This does not read anything: the bytes are already in the buffer.
            length => match opened.bytes.fill_buf() {
                Ok(bytes) => bytes.get(..length - 1).unwrap_or(bytes),
                Err(error) => return Err(bad(error.to_string())),
            },
        };
        if opened.journal {
            *text = journal_record(bytes).map_err(|error| bad(error.to_string()))?;
            return Ok(text);
        }
        std::str::from_utf8(bytes).map_err(|error| bad(error.to_string()))
    }

    /// Reads up to the end of the line.
    fn read_line(&mut self) -> io::Result<Read> {
        self.line.clear();
        self.opened.bytes.consume(std::mem::take(&mut self.buffered));
        let mut too_long = false;
        loop {
            let bytes = match self.opened.bytes.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                return Ok(match (too_long, self.line.is_empty()) {
                    (true, _) => Read::TooLong,
                    (false, true) => Read::End,
                    (false, false) => Read::Torn,
                });
            }
            let end = memchr::memchr(b'\n', bytes);
            let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
            if let Some(end) = end
                && self.line.is_empty()
                && !too_long
                && !part.trim_ascii().is_empty()
            {
                self.buffered = end + 1;
                return Ok(Read::Buffered);
            }
            too_long = too_long || self.line.len() + part.len() > LONGEST;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.opened.bytes.consume(used);
            if end.is_some() {
                return Ok(if too_long { Read::TooLong } else { Read::Whole });
            }
        }
    }
}

enum Read {
    /// It is contiguous in the buffer.
    Buffered,
    /// It is in `line`.
    Whole,
    /// It has no line feed, at the end of the source.
    Torn,
    TooLong,
    End,
}

/// Returns whether a last line without a line feed is complete. A user may have copied it. If a
/// writer was interrupted, it is not complete.
fn is_complete(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

/// Why a line of the journal does not contain a record.
#[derive(Debug, thiserror::Error)]
enum JournalError {
    /// It is not a line of the journal, or it belongs to another program.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The record is not UTF-8.
    #[error(transparent)]
    Utf8(#[from] FromUtf8Error),
    /// The record is neither text nor bytes.
    #[error("{} is not text", journald::RECORD)]
    NoText,
}

/// Returns the record in a line of `journalctl -o json`. A field that is not plain text appears
/// there as the numbers of its bytes, and a repeated field as a list.
fn journal_record(line: &[u8]) -> Result<String, JournalError> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "PORTWATCH_EVENT")]
        record: Value,
    }
    let entry: Entry = serde_json::from_slice(line)?;
    match entry.record {
        Value::String(text) => Ok(text),
        Value::Array(bytes) => {
            let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes: Option<Vec<u8>> = bytes.iter().map(byte).collect();
            Ok(String::from_utf8(bytes.ok_or(JournalError::NoText)?)?)
        }
        _ => Err(JournalError::NoText),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(bytes: &[u8], journal: bool) -> Vec<Result<String, String>> {
        // So small that some lines are in one piece and others are not.
        let bytes = Box::new(io::BufReader::with_capacity(8, io::Cursor::new(bytes.to_vec())));
        let mut lines = Lines::of(Opened { name: "f".to_owned(), bytes, journal });
        let mut all = Vec::new();
        while let Some(next) = lines.advance() {
            all.push(next.map(str::to_owned).map_err(|bad| bad.to_string()));
        }
        all
    }

    #[test]
    fn a_torn_last_line_is_skipped_and_said() {
        let torn = "f:3: the last line is incomplete and was skipped".to_owned();
        assert_eq!(lines(b"{}\n\n{\"a\":", false), [Ok("{}".to_owned()), Err(torn)]);
        // Copied from a file by hand.
        assert_eq!(lines(b"{}\n[1]", false), [Ok("{}".to_owned()), Ok("[1]".to_owned())]);
    }

    #[test]
    fn what_the_journal_shows_is_read() {
        let text = br#"{"PORTWATCH_EVENT":"{}","__CURSOR":"x"}
{"PORTWATCH_EVENT":[123,125]}
{"PORTWATCH_EVENT":null}
{"MESSAGE":"x"}"#;
        let read = lines(text, true);
        assert_eq!(read[..2], [Ok("{}".to_owned()), Ok("{}".to_owned())]);
        assert_eq!(read[2], Err("f:3: PORTWATCH_EVENT is not text".to_owned()));
        assert!(read[3].as_ref().is_err_and(|why| why.starts_with("f:4: missing field")));
    }

    proptest! {
        #[test]
        fn every_line_comes_out_as_it_is(texts in prop::collection::vec("[ -~é]{0,20}", 0..9)) {
            let whole = lines(format!("{}\n", texts.join("\n")).as_bytes(), false);
            let wanted: Vec<_> = texts.iter().filter(|text| !text.trim().is_empty()).collect();
            prop_assert_eq!(whole.iter().map(|text| text.as_ref().unwrap()).collect::<Vec<_>>(), wanted);
        }

        #[test]
        fn any_bytes_give_lines_or_errors(bytes: Vec<u8>, journal: bool) {
            let fed = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
            prop_assert!(lines(&bytes, journal).len() <= fed);
        }
    }
}
