//! Reads one line of the stream, and diagnoses it again.
//!
//! Lines in the agent's own format are read [section by section](super::section), because a
//! crash loop is blocked by the same listener each time. Everything except the diagnosis is
//! passed on as unchanged bytes. A line in any other format is read as a whole.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{
    same::is_written_as,
    section::{Hole, Section, Walk},
};
use crate::{
    diagnose::{Diagnosis, diagnose},
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

/// Reads lines, and caches sections.
pub struct Reader {
    /// The evidence of the last line. Each section knows the text from which its part was read.
    evidence: Option<Evidence>,
    /// The evidence of a line that was read as a whole.
    whole: Option<Evidence>,
    host: Host,
    hosts: Section<Host>,
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

/// The values that differ in each failure of a program that is restarted again and again.
const OF_FAILURE: &[Hole<Failure>] =
    &[Hole { key: r#","cookie":"#, fill: |failure, text| put(&mut failure.cookie, text) }];
const OF_PROCESS: &[Hole<Process>] = &[
    Hole { key: r#"{"pid":"#, fill: |process, text| put(&mut process.pid, text) },
    Hole { key: r#","tid":"#, fill: |process, text| put(&mut process.tid, text) },
    Hole { key: r#","started":"#, fill: |process, text| put(&mut process.started, text) },
    Hole {
        key: r#","restarts":"#,
        fill: |process, text| put(&mut process.supervisor.as_mut()?.restarts, text),
    },
    Hole {
        key: r#","main_pid":"#,
        fill: |process, text| put(&mut process.supervisor.as_mut()?.main_pid, text),
    },
];

fn put<T: DeserializeOwned>(field: &mut T, text: &str) -> Option<()> {
    *field = serde_json::from_str(text).ok()?;
    Some(())
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            evidence: None,
            whole: None,
            host: Host::default(),
            hosts: Section::default(),
            failure: Section::with(OF_FAILURE),
            process: Section::with(OF_PROCESS),
            netns: Section::default(),
            sockets: Section::default(),
            time_wait: Section::default(),
            connections: Section::default(),
            ephemeral: Section::default(),
            last_holder: Section::default(),
            previous_holder: Section::default(),
            gaps: Section::default(),
        }
    }
}

/// The content of a line.
pub enum Line<'a> {
    /// An event.
    Event(Recorded<'a>),
    /// Another record, which is passed on unchanged.
    Other(Record),
}

/// An event as it was recorded.
pub struct Recorded<'a> {
    /// Its id, by which its outcome refers to it.
    pub id: Cow<'a, str>,
    /// The recorded evidence.
    pub evidence: &'a Evidence,
    /// How many identical failures it summarizes.
    pub count: u64,
    form: Form<'a>,
}

/// An event with the diagnosis of the current rules.
pub struct Again<'a> {
    /// Its id, by which its outcome refers to it.
    pub id: Cow<'a, str>,
    /// The recorded evidence.
    pub evidence: &'a Evidence,
    /// How many identical failures it summarizes.
    pub count: u64,
    /// The new diagnosis.
    pub diagnosis: Diagnosis,
    form: Form<'a>,
}

enum Form<'a> {
    /// A line in the agent's own format, with the same diagnosis.
    Same(&'a str),
    /// A line in the agent's own format up to the diagnosis, which is the last field of a line.
    Plain {
        line: &'a str,
        /// The position at which the diagnosis begins.
        diagnosis: usize,
    },
    /// An event that was changed into the current version, or whose fields are in another
    /// order.
    Other(Box<Event>),
}

impl Reader {
    /// Reads one line.
    ///
    /// # Errors
    /// It is not a record of the stream.
    pub fn read<'a>(&'a mut self, line: &'a str) -> Result<Line<'a>, ReadError> {
        if self.evidence.is_none()
            && let Ok(Record::BindFailure(event)) = read::record(line)
        {
            self.evidence = Some(event.into_evidence());
        }
        if let Some((id, count, diagnosis)) = self.plain(line)
            && let Some(evidence) = &self.evidence
        {
            let form = Form::Plain { line, diagnosis };
            return Ok(Line::Event(Recorded { id: id.into(), evidence, count, form }));
        }
        Ok(match read::record(line)? {
            Record::BindFailure(event) => {
                let evidence = self.whole.insert(event.as_ref().clone().into_evidence());
                let (id, count) = (event.id.clone().into(), event.count);
                Line::Event(Recorded { id, evidence, count, form: Form::Other(event) })
            }
            other => Line::Other(other),
        })
    }

    /// Reads the evidence of a line in the agent's own format. Returns its id, its count and
    /// the position at which its diagnosis begins.
    fn plain<'a>(&mut self, line: &'a str) -> Option<(&'a str, u64, usize)> {
        if !has_schema(line, BIND_FAILURE) {
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
        let mut walk = Walk { rest: line.get(r#"{"schema":"","#.len() + BIND_FAILURE.len()..)? };
        walk.key(r#""id":"#)?;
        let id = walk.word()?;
        walk.key(r#","time":"#)?;
        *time = walk.word()?.parse().ok()?;
        walk.key(r#","count":"#)?;
        let count = walk.number()?;
        for seen in [r#","first_seen":"#, r#","last_seen":"#] {
            if walk.key(seen).is_some() {
                walk.word()?.parse::<Timestamp>().ok()?;
            }
        }
        self.hosts.read(&mut walk, r#","host":"#, &mut self.host)?;
        kernel.clone_from(&self.host.kernel);
        self.failure.read(&mut walk, r#","failure":"#, failure)?;
        self.process.read(&mut walk, r#","process":"#, process)?;
        self.netns.read(&mut walk, r#","netns":"#, netns)?;
        self.sockets.read(&mut walk, r#","sockets":"#, sockets)?;
        self.time_wait.read(&mut walk, r#","time_wait":"#, time_wait)?;
        self.connections.read(&mut walk, r#","connections":"#, connections)?;
        self.ephemeral.read(&mut walk, r#","ephemeral":"#, ephemeral)?;
        self.last_holder.read(&mut walk, r#","last_holder":"#, last_holder)?;
        self.previous_holder.read(&mut walk, r#","previous_holder":"#, previous_holder)?;
        self.gaps.read(&mut walk, r#","gaps":"#, gaps)?;
        walk.key(r#","diagnosis":"#)?;
        Some((id, count, line.len() - walk.rest.len()))
    }
}

impl<'a> Recorded<'a> {
    /// Diagnoses the event with the current rules.
    ///
    /// # Errors
    /// The recorded value of the diagnosis is invalid, so the line is not a record.
    pub fn again(self) -> Result<Again<'a>, ReadError> {
        let Self { id, evidence, count, mut form } = self;
        let diagnosis = diagnose(evidence);
        if let Form::Plain { line, diagnosis: at } = form {
            let recorded = line.get(at..).unwrap_or_default();
            let value = recorded.strip_suffix('}').unwrap_or_default();
            // In most lines the diagnosis is still the same, so the recorded one need not be
            // parsed.
            if is_written_as(&diagnosis, value) {
                form = Form::Same(line);
            } else if !is_last_of_object(recorded) {
                form = Form::Other(Box::new(event(line)?));
            }
        }
        Ok(Again { id, evidence, count, diagnosis, form })
    }
}

impl Again<'_> {
    /// Writes the event as a line.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.form {
            Form::Same(line) => out.write_all(line.as_bytes())?,
            Form::Plain { line, diagnosis } => {
                out.write_all(line.get(..*diagnosis).unwrap_or_default().as_bytes())?;
                serde_json::to_writer(&mut *out, &self.diagnosis)?;
                out.write_all(b"}")?;
            }
            Form::Other(event) => {
                let event = Event { diagnosis: self.diagnosis.clone(), ..event.as_ref().clone() };
                serde_json::to_writer(&mut *out, &event)?;
            }
        }
        out.write_all(b"\n")
    }

    /// Returns the event with the new diagnosis.
    ///
    /// # Errors
    /// It cannot be read as a whole.
    pub fn event(&self) -> Result<Event, ReadError> {
        let Form::Plain { line, diagnosis } = &self.form else {
            return Ok(Event { diagnosis: self.diagnosis.clone(), ..self.recorded()? });
        };
        let mut line = line.get(..*diagnosis).unwrap_or_default().to_owned();
        line += &serde_json::to_string(&self.diagnosis).map_err(ReadError::Json)?;
        line.push('}');
        event(&line)
    }

    /// Returns the event with the diagnosis that was recorded.
    ///
    /// # Errors
    /// That diagnosis cannot be read.
    pub fn recorded(&self) -> Result<Event, ReadError> {
        match &self.form {
            Form::Same(line) | Form::Plain { line, .. } => event(line),
            Form::Other(event) => Ok(event.as_ref().clone()),
        }
    }
}

/// Returns whether the rest is one more value and the end of the object, and nothing else.
fn is_last_of_object(rest: &str) -> bool {
    let mut walk = Walk { rest };
    walk.value::<IgnoredAny>().is_some() && walk.rest == "}"
}

fn event(line: &str) -> Result<Event, ReadError> {
    match read::record(line)? {
        Record::BindFailure(event) => Ok(*event),
        // Its schema said that it is a failed bind.
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
                supervisor.main_pid = (number % 4 != 0).then_some(number);
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
