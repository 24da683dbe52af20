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

/// Reads lines; remembers sections.
#[derive(Default)]
pub struct Reader {
    /// That of the last line. Each section knows the text that its part was read
    /// from.
    evidence: Option<Evidence>,
    /// That of a line that was read as a whole.
    whole: Option<Evidence>,
    /// Room for a diagnosis as it is written.
    text: Vec<u8>,
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
    text: &'a mut Vec<u8>,
}

/// An event with the diagnosis that today's rules make of it.
pub struct Again<'a> {
    /// What was known.
    pub evidence: &'a Evidence,
    /// How many equal failures it stands for.
    pub count: u64,
    /// What is made of it.
    pub diagnosis: Diagnosis,
    form: Form<'a>,
    /// The diagnosis as it is written.
    text: &'a [u8],
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
            return Ok(Line::Event(Recorded { evidence, count, form, text: &mut self.text }));
        }
        Ok(match read::record(line)? {
            Record::BindFailure(event) => {
                let evidence = self.whole.insert(event.as_ref().clone().into_evidence());
                let (count, form) = (event.count, Form::Other(event));
                Line::Event(Recorded { evidence, count, form, text: &mut self.text })
            }
            other => Line::Other(other),
        })
    }

    /// Reads the evidence of a line as the agent writes it, and gives its
    /// count and where its diagnosis begins.
    fn plain(&mut self, line: &str) -> Option<(u64, usize)> {
        if !has_schema(line, BIND_FAILURE) {
            return None;
        }
        let Evidence {
            time,
            kernel,
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
        walk.word()?;
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
        Some((count, line.len() - walk.rest.len()))
    }
}

impl<'a> Recorded<'a> {
    /// Diagnoses.
    ///
    /// # Errors
    /// What stands in the place of the diagnosis makes the line no record.
    pub fn again(self) -> Result<Again<'a>, ReadError> {
        let Self { evidence, count, mut form, text } = self;
        let diagnosis = diagnose(evidence);
        text.clear();
        serde_json::to_writer(&mut *text, &diagnosis).map_err(ReadError::Json)?;
        if let Form::Plain { line, diagnosis: at } = form {
            let recorded = line.get(at..).unwrap_or_default();
            // In most lines the diagnosis is still the same, and need not be read.
            let unchanged = recorded.as_bytes().strip_prefix(text.as_slice()) == Some(b"}");
            if !unchanged && !is_last_of_object(recorded) {
                form = Form::Other(Box::new(event(line)?));
            }
        }
        Ok(Again { evidence, count, diagnosis, form, text })
    }
}

impl Again<'_> {
    /// Writes the event as a line.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.form {
            Form::Plain { line, diagnosis } => {
                out.write_all(line.get(..*diagnosis).unwrap_or_default().as_bytes())?;
                out.write_all(self.text)?;
                out.write_all(b"}\n")
            }
            Form::Other(event) => {
                let event = Event { diagnosis: self.diagnosis.clone(), ..event.as_ref().clone() };
                serde_json::to_writer(&mut *out, &event)?;
                out.write_all(b"\n")
            }
        }
    }

    /// The event, whatever became of the recorded diagnosis.
    ///
    /// # Errors
    /// It cannot be read as a whole.
    pub fn event(&self) -> Result<Event, ReadError> {
        let Form::Plain { line, diagnosis } = &self.form else {
            return Ok(Event { diagnosis: self.diagnosis.clone(), ..self.recorded()? });
        };
        let before = line.get(..*diagnosis).unwrap_or_default();
        event(&format!("{before}{}}}", String::from_utf8_lossy(self.text)))
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

/// Whether there is one more value, the end of the object, and nothing else.
fn is_last_of_object(rest: &str) -> bool {
    let mut walk = Walk { rest };
    walk.value::<IgnoredAny>().is_some() && walk.rest == "}"
}

fn event(line: &str) -> Result<Event, ReadError> {
    match read::record(line)? {
        Record::BindFailure(event) => Ok(*event),
        // Its schema said that it is one.
        _ => Err(VersionError::NoSchema.into()),
    }
}

/// The last distinct texts of one section, with what they say.
struct Section<T> {
    /// The text of what the evidence has now.
    current: String,
    others: Vec<(String, T)>,
    oldest: usize,
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self { current: String::new(), others: Vec::new(), oldest: 0 }
    }
}

impl<T: for<'de> Deserialize<'de>> Section<T> {
    const MOST: usize = 7;
    const LONGEST: usize = 8 * 1024;

    /// Makes `field` what stands behind `key`.
    fn read(&mut self, walk: &mut Walk<'_>, key: &str, field: &mut T) -> Option<()> {
        walk.key(key)?;
        if walk.known(&self.current).is_some() {
            return Some(());
        }
        if let Some((text, value)) =
            self.others.iter_mut().find(|(text, _)| walk.known(text).is_some())
        {
            std::mem::swap(text, &mut self.current);
            std::mem::swap(value, field);
            return Some(());
        }
        let (text, value) = walk.value::<T>()?;
        let before = std::mem::replace(field, value);
        match self.others.get_mut(self.oldest) {
            Some((oldest, value)) => {
                std::mem::swap(oldest, &mut self.current);
                *value = before;
            }
            None => self.others.push((std::mem::take(&mut self.current), before)),
        }
        self.oldest = (self.oldest + 1) % Self::MOST;
        self.current.clear();
        // An empty text is never found.
        if text.len() <= Self::LONGEST {
            self.current.push_str(text);
        }
        Some(())
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

    /// Passes over `text` if that is the value here. No JSON value is the beginning
    /// of another, but for numbers, and behind each section comes a comma.
    fn known(&mut self, text: &str) -> Option<()> {
        let rest = self.rest.strip_prefix(text)?;
        if text.is_empty() || !rest.starts_with(',') {
            return None;
        }
        self.rest = rest;
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
