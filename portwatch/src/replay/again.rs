//! One line of the stream, and its diagnosis made again.
//!
//! Lines as the agent writes them are read section by section, and a section that
//! stands there as it did in one of the last lines is not read again: a crash loop
//! meets the same listener each time. All but the diagnosis is passed on as the
//! bytes that it is. A line in any other form is read as a whole.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    diagnose::Diagnosis,
    event::{
        BIND_FAILURE, Event, Host, Record,
        read::{self, ReadError, has_schema},
        versions::VersionError,
    },
    evidence::{
        Connections, Ephemeral, Evidence, Failure, Gap, LastHolder, Netns, Process, Socket,
        TimeWait,
    },
};

/// Reads lines; remembers sections.
#[derive(Default)]
pub struct Reader {
    host: Section<Host>,
    failure: Section<Failure>,
    process: Section<Process>,
    netns: Section<Netns>,
    sockets: Section<Vec<Socket>>,
    time_wait: Section<TimeWait>,
    connections: Section<Connections>,
    ephemeral: Section<Option<Ephemeral>>,
    last_holder: Section<Option<LastHolder>>,
    previous_holder: Section<Option<LastHolder>>,
    gaps: Section<Vec<Gap>>,
}

/// What a line has.
pub enum Line<'a> {
    /// An event.
    Event(Recorded<'a>),
    /// Something else, which is passed on as it is.
    Other(Record),
}

/// An event as it was recorded.
pub struct Recorded<'a> {
    /// What was known.
    pub evidence: Evidence,
    form: Form<'a>,
}

enum Form<'a> {
    /// As the agent writes it.
    Plain {
        line: &'a str,
        /// Where the diagnosis begins, which is the last of the line.
        diagnosis: usize,
    },
    /// Brought up to date, or in another order.
    Other(Box<Event>),
}

impl Reader {
    /// Reads one line.
    ///
    /// # Errors
    /// It is no record of the stream.
    pub fn read<'a>(&mut self, line: &'a str) -> Result<Line<'a>, ReadError> {
        if let Some((evidence, diagnosis)) = self.plain(line) {
            return Ok(Line::Event(Recorded { evidence, form: Form::Plain { line, diagnosis } }));
        }
        Ok(match read::record(line)? {
            Record::BindFailure(event) => Line::Event(Recorded {
                evidence: event.as_ref().clone().into_evidence(),
                form: Form::Other(event),
            }),
            other => Line::Other(other),
        })
    }

    /// The evidence of a line as the agent writes it, and where its diagnosis
    /// begins.
    fn plain(&mut self, line: &str) -> Option<(Evidence, usize)> {
        if !has_schema(line, BIND_FAILURE) {
            return None;
        }
        let mut walk = Walk { rest: line.get(r#"{"schema":"","#.len() + BIND_FAILURE.len()..)? };
        walk.key(r#""id":"#)?;
        walk.word()?;
        walk.key(r#","time":"#)?;
        let time: Timestamp = walk.word()?.parse().ok()?;
        walk.key(r#","count":"#)?;
        walk.number()?;
        for seen in [r#","first_seen":"#, r#","last_seen":"#] {
            if walk.key(seen).is_some() {
                walk.word()?.parse::<Timestamp>().ok()?;
            }
        }
        walk.key(r#","host":"#)?;
        let host = self.host.read(&mut walk)?;
        walk.key(r#","failure":"#)?;
        let failure = self.failure.read(&mut walk)?;
        walk.key(r#","process":"#)?;
        let process = self.process.read(&mut walk)?;
        walk.key(r#","netns":"#)?;
        let netns = self.netns.read(&mut walk)?;
        walk.key(r#","sockets":"#)?;
        let sockets = self.sockets.read(&mut walk)?;
        walk.key(r#","time_wait":"#)?;
        let time_wait = self.time_wait.read(&mut walk)?;
        walk.key(r#","connections":"#)?;
        let connections = self.connections.read(&mut walk)?;
        walk.key(r#","ephemeral":"#)?;
        let ephemeral = self.ephemeral.read(&mut walk)?;
        walk.key(r#","last_holder":"#)?;
        let last_holder = self.last_holder.read(&mut walk)?;
        walk.key(r#","previous_holder":"#)?;
        let previous_holder = self.previous_holder.read(&mut walk)?;
        walk.key(r#","gaps":"#)?;
        let gaps = self.gaps.read(&mut walk)?;
        walk.key(r#","diagnosis":"#)?;
        let diagnosis = line.len() - walk.rest.len();
        let evidence = Evidence {
            time,
            kernel: host.kernel,
            failure,
            process,
            netns,
            sockets,
            time_wait,
            connections,
            ephemeral,
            last_holder,
            previous_holder,
            gaps,
        };
        walk.is_last_of_object().then_some((evidence, diagnosis))
    }
}

impl Recorded<'_> {
    /// Writes the event as a line, with this diagnosis.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, diagnosis: &Diagnosis, out: &mut impl Write) -> io::Result<()> {
        match &self.form {
            Form::Plain { line, diagnosis: at } => {
                out.write_all(line.get(..*at).unwrap_or_default().as_bytes())?;
                serde_json::to_writer(&mut *out, diagnosis)?;
                out.write_all(b"}\n")
            }
            Form::Other(event) => {
                let event = Event { diagnosis: diagnosis.clone(), ..event.as_ref().clone() };
                serde_json::to_writer(&mut *out, &event)?;
                out.write_all(b"\n")
            }
        }
    }

    /// The event with the diagnosis that it was recorded with.
    ///
    /// # Errors
    /// That diagnosis cannot be read.
    pub fn event(&self) -> Result<Event, ReadError> {
        match &self.form {
            Form::Plain { line, .. } => match read::record(line)? {
                Record::BindFailure(event) => Ok(*event),
                // Its schema said that it is one.
                _ => Err(VersionError::NoSchema.into()),
            },
            Form::Other(event) => Ok(event.as_ref().clone()),
        }
    }
}

/// The last distinct texts of one section, with what they say.
struct Section<T> {
    known: Vec<(Box<str>, T)>,
    oldest: usize,
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self { known: Vec::new(), oldest: 0 }
    }
}

impl<T: Clone + for<'de> Deserialize<'de>> Section<T> {
    const MOST: usize = 8;
    const LONGEST: usize = 8 * 1024;

    fn read(&mut self, walk: &mut Walk<'_>) -> Option<T> {
        // No JSON value is the beginning of another, but for numbers: so one that
        // is known, with a comma behind it, is what stands here.
        let known = self.known.iter().find_map(|(text, value)| {
            let rest = walk.rest.strip_prefix(&**text)?;
            rest.starts_with(',').then_some((rest, value))
        });
        if let Some((rest, value)) = known {
            walk.rest = rest;
            return Some(value.clone());
        }
        let (text, value) = walk.value::<T>()?;
        if text.len() <= Self::LONGEST {
            let entry = (Box::from(text), value.clone());
            match self.known.get_mut(self.oldest) {
                Some(oldest) => *oldest = entry,
                None => self.known.push(entry),
            }
            self.oldest = (self.oldest + 1) % Self::MOST;
        }
        Some(value)
    }
}

/// What is left of a line.
struct Walk<'a> {
    rest: &'a str,
}

impl<'a> Walk<'a> {
    fn key(&mut self, key: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(key)?;
        Some(())
    }

    /// A string in which nothing is escaped.
    fn word(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.strip_prefix('"')?.split_once('"')?;
        self.rest = rest;
        (!word.bytes().any(|byte| byte == b'\\' || byte < b' ')).then_some(word)
    }

    fn number(&mut self) -> Option<u64> {
        let end = self.rest.find(|char: char| !char.is_ascii_digit())?;
        let (number, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        number.parse().ok()
    }

    /// A value, and its text.
    fn value<T: Deserialize<'a>>(&mut self) -> Option<(&'a str, T)> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter();
        let value = values.next()?.ok()?;
        let (text, rest) = self.rest.split_at_checked(values.byte_offset())?;
        self.rest = rest;
        Some((text, value))
    }

    /// Whether one more value, the end of the object and nothing else is left.
    fn is_last_of_object(mut self) -> bool {
        self.value::<IgnoredAny>().is_some() && self.rest == "}"
    }
}
