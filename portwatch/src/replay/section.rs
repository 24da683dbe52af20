//! Sections of a line in the agent's own format, read from its text. A section that has the
//! same text as in one of the last lines, except for the values that differ in each failure, is
//! not parsed again.

use serde::{Deserialize, de::DeserializeOwned};

/// The last distinct texts of one section, with their values.
pub struct Section<T: 'static> {
    holes: &'static [Hole<T>],
    /// The text of the section that the evidence contains now.
    current: Text<T>,
    others: Vec<(Text<T>, T)>,
    oldest: usize,
}

/// A value inside a section that differs from line to line while everything else is the same:
/// the pid of a service that is restarted again and again.
pub struct Hole<T> {
    /// The text before the value, from the comma or brace on.
    pub key: &'static str,
    /// Stores the value in its field.
    pub fill: Fill<T>,
}

/// Parses the text of such a value.
type Fill<T> = fn(&mut T, &str) -> Option<()>;

impl<T> Section<T> {
    /// Creates a section with such values, in the order in which they appear in it.
    pub const fn with(holes: &'static [Hole<T>]) -> Self {
        Self { holes, current: Text::NONE, others: Vec::new(), oldest: 0 }
    }
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self::with(&[])
    }
}

impl<T: DeserializeOwned> Section<T> {
    const MOST: usize = 7;
    const LONGEST: usize = 8 * 1024;

    /// Sets `field` to the value after `key`.
    pub fn read(&mut self, walk: &mut Walk<'_>, key: &str, field: &mut T) -> Option<()> {
        walk.key(key)?;
        if self.current.pass(walk, field).is_some() {
            return Some(());
        }
        for (text, value) in &mut self.others {
            if text.pass(walk, value).is_some() {
                std::mem::swap(text, &mut self.current);
                std::mem::swap(value, field);
                return Some(());
            }
        }
        let (text, value) = walk.value::<T>()?;
        let text = match text.len() <= Self::LONGEST {
            true => Text::of(text, self.holes),
            false => Text::NONE,
        };
        let before = (std::mem::replace(&mut self.current, text), std::mem::replace(field, value));
        match self.others.get_mut(self.oldest) {
            Some(oldest) => *oldest = before,
            None => self.others.push(before),
        }
        self.oldest = (self.oldest + 1) % Self::MOST;
        Some(())
    }
}

/// The text of a section: the parts before each such value, and the part after the last one.
/// Values that the text does not contain are left out.
struct Text<T> {
    pieces: Vec<(String, Fill<T>)>,
    rest: String,
}

impl<T> Text<T> {
    /// A text that never matches.
    const NONE: Self = Self { pieces: Vec::new(), rest: String::new() };

    fn of(text: &str, holes: &[Hole<T>]) -> Self {
        let mut pieces = Vec::new();
        let mut walk = Walk { rest: text };
        for hole in holes {
            // Inside a string the quotes of the key would be escaped.
            let found = walk.rest.find(hole.key).map(|at| at + hole.key.len());
            let Some((piece, behind)) = found.and_then(|end| walk.rest.split_at_checked(end))
            else {
                continue;
            };
            pieces.push((piece.to_owned(), hole.fill));
            walk.rest = behind;
            if walk.scalar().is_none() {
                return Self::NONE;
            }
        }
        Self { pieces, rest: walk.rest.to_owned() }
    }

    /// Skips this text if the line has it here, and parses the values inside it. No JSON value
    /// is the beginning of another one, except for numbers, and a comma follows each section.
    fn pass(&self, walk: &mut Walk<'_>, value: &mut T) -> Option<()> {
        let mut ahead = Walk { rest: walk.rest };
        for (piece, fill) in &self.pieces {
            ahead.key(piece)?;
            // If the following text does not match, only these values inside the section are
            // outdated, and they are parsed again when the section is next used.
            fill(value, ahead.scalar()?)?;
        }
        ahead.key(&self.rest)?;
        if self.rest.is_empty() || !ahead.rest.starts_with(',') {
            return None;
        }
        *walk = ahead;
        Some(())
    }
}

/// The rest of a line.
pub struct Walk<'a> {
    pub rest: &'a str,
}

impl<'a> Walk<'a> {
    /// Skips the text that must be here.
    pub fn key(&mut self, key: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(key)?;
        Some(())
    }

    /// Returns a string that contains no escapes.
    pub fn word(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.strip_prefix('"')?.split_once('"')?;
        self.rest = rest;
        (!word.bytes().any(|byte| byte == b'\\' || byte < b' ')).then_some(word)
    }

    /// Returns a count.
    pub fn number(&mut self) -> Option<u64> {
        let end = self.rest.find(|char: char| !char.is_ascii_digit())?;
        let (number, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        number.parse().ok()
    }

    /// Returns the text of a string without a comma or a brace, of a number, or of a word.
    fn scalar(&mut self) -> Option<&'a str> {
        let end = self.rest.find([',', '}'])?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(text)
    }

    /// Returns a value, and its text.
    pub fn value<T: Deserialize<'a>>(&mut self) -> Option<(&'a str, T)> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter();
        let value = values.next()?.ok()?;
        let (text, rest) = self.rest.split_at_checked(values.byte_offset())?;
        self.rest = rest;
        Some((text, value))
    }
}
