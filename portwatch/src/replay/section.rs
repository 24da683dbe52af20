//! Sections of a line as the agent writes it, read from its text. A section that
//! stands there as it did in one of the last lines, but for what is another in each
//! failure, is not read again.

use serde::{Deserialize, de::DeserializeOwned};

/// The last distinct texts of one section, with what they say.
pub struct Section<T: 'static> {
    holes: &'static [Hole<T>],
    /// The text of what the evidence has now.
    current: Text<T>,
    others: Vec<(Text<T>, T)>,
    oldest: usize,
}

/// A value inside a section that differs from line to line where all else is the
/// same: the pid of a service that is started again and again.
pub struct Hole<T> {
    /// What stands before it, from the comma or brace on.
    pub key: &'static str,
    /// Puts what stands there where it belongs.
    pub fill: Fill<T>,
}

/// Reads the text of a hole.
type Fill<T> = fn(&mut T, &str) -> Option<()>;

impl<T> Section<T> {
    /// A section with holes, in the order in which they stand in it.
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

    /// Makes `field` what stands behind `key`.
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

/// A section's text: what stands before each hole, and behind the last. Holes that
/// it does not have are left out.
struct Text<T> {
    pieces: Vec<(String, Fill<T>)>,
    rest: String,
}

impl<T> Text<T> {
    /// Is never found.
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

    /// Passes over this text if that is the value here, and reads what is in the
    /// holes. No JSON value is the beginning of another, but for numbers, and
    /// behind each section comes a comma.
    fn pass(&self, walk: &mut Walk<'_>, value: &mut T) -> Option<()> {
        let mut ahead = Walk { rest: walk.rest };
        for (piece, fill) in &self.pieces {
            ahead.key(piece)?;
            // If what follows does not fit, this value is stale in its holes only, and
            // they are read anew when it is next used.
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

/// What is left of a line.
pub struct Walk<'a> {
    pub rest: &'a str,
}

impl<'a> Walk<'a> {
    /// Passes over what must stand here.
    pub fn key(&mut self, key: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(key)?;
        Some(())
    }

    /// A string in which nothing is escaped.
    pub fn word(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.strip_prefix('"')?.split_once('"')?;
        self.rest = rest;
        (!word.bytes().any(|byte| byte == b'\\' || byte < b' ')).then_some(word)
    }

    /// A count.
    pub fn number(&mut self) -> Option<u64> {
        let end = self.rest.find(|char: char| !char.is_ascii_digit())?;
        let (number, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        number.parse().ok()
    }

    /// The text of a string without a comma or a brace in it, a number or a word.
    fn scalar(&mut self) -> Option<&'a str> {
        let end = self.rest.find([',', '}'])?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(text)
    }

    /// A value, and its text.
    pub fn value<T: Deserialize<'a>>(&mut self) -> Option<(&'a str, T)> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter();
        let value = values.next()?.ok()?;
        let (text, rest) = self.rest.split_at_checked(values.byte_offset())?;
        self.rest = rest;
        Some((text, value))
    }
}
