//! One line of the stream, and its diagnosis made again.
//!
//! Of lines as the agent writes them, each [section](super::section) is read by itself: a
//! crash loop meets the same listener each time. All but the diagnosis is passed on as the
//! bytes that it is. A line in any other form is read as a whole.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::section::Section;
use crate::{
    diagnose::{Diagnosis, diagnose},
    event::{
        BIND_FAILURE, Event, Host, Record,
        read::{self, ReadError, has_schema},
        versions::VersionError,
    },
    evidence::{Connections, Ephemeral, Evidence, Gap, LastHolder, Netns, Socket, TimeWait},
};

/// Reads lines; remembers sections.
#[derive(Default)]
pub struct Reader {
    /// That of the last line. Each section knows the text that its part was read
    /// from.
    evidence: Option<Evidence>,
    /// That of a line that was read as a whole.
    whole: Option<Evidence>,
    /// The line in hand, written from its parts.
    written: Vec<u8>,
    host: Host,
    hosts: Section<Host>,
    netns: Section<Netns>,
    sockets: Section<Vec<Socket>>,
    time_wait: Section<TimeWait>,
    connections: Section<Connections>,
    ephemeral: Section<Option<Ephemeral>>,
    last_holder: Section<Option<LastHolder>>,
    previous_holder: Section<Option<LastHolder>>,
    gaps: Section<Vec<Gap>>,
}

/// An [`Event`] whose sections have not been read, in the order in which it is written.
#[derive(Deserialize, Serialize)]
struct Parts<'a> {
    schema: &'a str,
    id: &'a str,
    time: Timestamp,
    count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_seen: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    #[serde(borrow)]
    host: &'a RawValue,
    failure: &'a RawValue,
    process: &'a RawValue,
    netns: &'a RawValue,
    sockets: &'a RawValue,
    time_wait: &'a RawValue,
    connections: &'a RawValue,
    ephemeral: &'a RawValue,
    last_holder: &'a RawValue,
    previous_holder: &'a RawValue,
    gaps: &'a RawValue,
    diagnosis: &'a RawValue,
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
    pub evidence: &'a Evidence,
    /// How many equal failures it stands for.
    pub count: u64,
    form: Form<'a>,
}

/// An event with the diagnosis that today's rules make of it.
pub struct Again<'a> {
    /// What was known.
    pub evidence: &'a Evidence,
    /// How many equal failures it stands for.
    pub count: u64,
    /// What is made of it.
    pub diagnosis: Diagnosis,
    /// The same, as it is written.
    text: String,
    form: Form<'a>,
}

enum Form<'a> {
    /// As the agent writes it; the diagnosis is the last of a line.
    Plain {
        line: &'a str,
        /// The text of the diagnosis that it was recorded with.
        diagnosis: &'a str,
    },
    /// Brought up to date, or in another order.
    Other(Box<Event>),
}

impl Reader {
    /// Reads one line.
    ///
    /// # Errors
    /// It is no record of the stream.
    pub fn read<'a>(&'a mut self, line: &'a str) -> Result<Line<'a>, ReadError> {
        if self.evidence.is_none()
            && let Ok(Record::BindFailure(event)) = read::record(line)
        {
            self.evidence = Some(event.into_evidence());
        }
        if let Some((count, diagnosis)) = self.plain(line)
            && let Some(evidence) = &self.evidence
        {
            let form = Form::Plain { line, diagnosis };
            return Ok(Line::Event(Recorded { evidence, count, form }));
        }
        Ok(match read::record(line)? {
            Record::BindFailure(event) => {
                let evidence = self.whole.insert(event.as_ref().clone().into_evidence());
                let (count, form) = (event.count, Form::Other(event));
                Line::Event(Recorded { evidence, count, form })
            }
            other => Line::Other(other),
        })
    }

    /// Reads the evidence of a line as the agent writes it, and gives its count and the
    /// text of its diagnosis.
    fn plain<'a>(&mut self, line: &'a str) -> Option<(u64, &'a str)> {
        if !has_schema(line, BIND_FAILURE) {
            return None;
        }
        let parts: Parts<'a> = serde_json::from_str(line).ok()?;
        self.written.clear();
        serde_json::to_writer(&mut self.written, &parts).ok()?;
        if self.written != line.as_bytes() {
            return None;
        }
        let Evidence {
            time,
            kernel,
            subject: _,
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
        } = self.evidence.as_mut()?;
        *time = parts.time;
        self.hosts.read(parts.host, &mut self.host)?;
        kernel.clone_from(&self.host.kernel);
        // Each failure has another cookie, and another process.
        *failure = serde_json::from_str(parts.failure.get()).ok()?;
        *process = serde_json::from_str(parts.process.get()).ok()?;
        self.netns.read(parts.netns, netns)?;
        self.sockets.read(parts.sockets, sockets)?;
        self.time_wait.read(parts.time_wait, time_wait)?;
        self.connections.read(parts.connections, connections)?;
        self.ephemeral.read(parts.ephemeral, ephemeral)?;
        self.last_holder.read(parts.last_holder, last_holder)?;
        self.previous_holder.read(parts.previous_holder, previous_holder)?;
        self.gaps.read(parts.gaps, gaps)?;
        Some((parts.count, parts.diagnosis.get()))
    }
}

impl<'a> Recorded<'a> {
    /// Diagnoses.
    ///
    /// # Errors
    /// The diagnosis cannot be written.
    pub fn again(self) -> Result<Again<'a>, ReadError> {
        let Self { evidence, count, form } = self;
        let diagnosis = diagnose(evidence);
        let text = serde_json::to_string(&diagnosis).map_err(ReadError::Json)?;
        Ok(Again { evidence, count, diagnosis, text, form })
    }
}

impl Again<'_> {
    /// Writes the event as a line.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.form {
            Form::Plain { line, diagnosis } if *diagnosis == self.text => {
                out.write_all(line.as_bytes())?;
            }
            Form::Plain { line, diagnosis } => {
                out.write_all(before(line, diagnosis).as_bytes())?;
                out.write_all(self.text.as_bytes())?;
                out.write_all(b"}")?;
            }
            Form::Other(event) => {
                let event = Event { diagnosis: self.diagnosis.clone(), ..event.as_ref().clone() };
                serde_json::to_writer(&mut *out, &event)?;
            }
        }
        out.write_all(b"\n")
    }

    /// The event, whatever became of the recorded diagnosis.
    ///
    /// # Errors
    /// It cannot be read as a whole.
    pub fn event(&self) -> Result<Event, ReadError> {
        match &self.form {
            Form::Plain { line, diagnosis } => {
                event(&[before(line, diagnosis), &self.text, "}"].concat())
            }
            Form::Other(event) => {
                Ok(Event { diagnosis: self.diagnosis.clone(), ..event.as_ref().clone() })
            }
        }
    }

    /// The event with the diagnosis that it was recorded with.
    ///
    /// # Errors
    /// That diagnosis cannot be read.
    pub fn recorded(&self) -> Result<Event, ReadError> {
        match &self.form {
            Form::Plain { line, .. } => event(line),
            Form::Other(event) => Ok(event.as_ref().clone()),
        }
    }
}

/// What stands before the diagnosis, behind which there is no more than a brace.
fn before<'a>(line: &'a str, diagnosis: &str) -> &'a str {
    line.strip_suffix('}').and_then(|line| line.strip_suffix(diagnosis)).unwrap_or_default()
}

fn event(line: &str) -> Result<Event, ReadError> {
    match read::record(line)? {
        Record::BindFailure(event) => Ok(*event),
        // Its schema said that it is one.
        _ => Err(VersionError::NoSchema.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// An event as it is written today, with the fields that have come since it was
    /// recorded.
    static EVENT: LazyLock<String> = LazyLock::new(|| {
        let recorded = include_str!("../../../tests/golden/listener.jsonl");
        serde_json::to_string(&event(recorded.trim_end()).unwrap()).unwrap()
    });

    /// The evidence, and the line with its recorded diagnosis, as the quick way and
    /// the plain one give them.
    fn both(reader: &mut Reader, line: &str) -> Option<[(Evidence, String); 2]> {
        let Record::BindFailure(event) = read::record(line).ok()? else { return None };
        let slow = serde_json::to_string(&event.clone().diagnosed_again()).unwrap();
        let Ok(Line::Event(recorded)) = reader.read(line) else { panic!("{line}") };
        let again = recorded.again().unwrap();
        let mut quick = Vec::new();
        again.write(&mut quick).unwrap();
        let quick = String::from_utf8(quick).unwrap().trim_end().to_owned();
        let evidence = again.evidence.clone();
        Some([(evidence, quick), (event.into_evidence(), slow)])
    }

    #[test]
    fn what_is_remembered_is_not_mixed_up() {
        let mut reader = Reader::default();
        // More than are remembered, coming back in another order.
        for number in (0..12).chain((0..12).rev()).chain([3, 3, 5, 3]) {
            let line = EVENT
                .replace("\"fd\":89", &format!("\"fd\":{}", 8 + number))
                .replace("\"host\":true", &format!("\"host\":{}", number % 2 == 0));
            let [quick, slow] = both(&mut reader, &line).unwrap();
            assert_eq!(quick, slow);
        }
    }

    #[test]
    fn what_is_another_in_each_failure_is_read() {
        let mut reader = Reader::default();
        let mut event = event(&EVENT).unwrap();
        for number in 0..20u32 {
            event.failure.cookie = (number % 7 != 0).then_some(number.into());
            event.process.pid = number;
            event.process.tid = (number % 5 != 0).then_some(number + 1);
            event.process.started = (number % 3 != 0).then_some(event.time);
            event.time += jiff::SignedDuration::from_millis(7);
            if let Some(supervisor) = &mut event.process.supervisor {
                supervisor.restarts = Some(number);
            }
            if number == 11 {
                event.process.supervisor = None;
            }
            let line = serde_json::to_string(&event).unwrap();
            let [quick, slow] = both(&mut reader, &line).unwrap();
            assert_eq!(quick, slow);
            assert_eq!(quick.0.process, event.process);
        }
    }

    proptest! {
        /// Whatever one byte of the evidence becomes, the two ways agree; and a reader
        /// that has seen a bad line still reads a good one.
        #[test]
        fn the_quick_way_is_the_plain_one(
            at in 0..EVENT.find("\"diagnosis\"").unwrap(),
            byte in 0x20u8..0x7f,
        ) {
            let mut reader = Reader::default();
            let good = EVENT.as_str();
            both(&mut reader, good).unwrap();
            let mut bytes = good.as_bytes().to_vec();
            bytes[at] = byte;
            let changed = String::from_utf8(bytes).unwrap();
            match both(&mut reader, &changed) {
                Some([quick, slow]) => prop_assert_eq!(quick.0, slow.0),
                None => prop_assert!(!matches!(reader.read(&changed), Ok(Line::Event(_)))),
            }
            let [quick, slow] = both(&mut reader, good).unwrap();
            prop_assert_eq!(quick, slow);
        }
    }
}
