//! The parts of a line that are often as they were in one of the last lines, and are then
//! not read again.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The last distinct texts of one section, with what they say.
pub struct Section<T> {
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

impl<T: DeserializeOwned> Section<T> {
    const MOST: usize = 7;
    const LONGEST: usize = 8 * 1024;

    /// Makes `field` what the text says.
    pub fn read(&mut self, text: &RawValue, field: &mut T) -> Option<()> {
        let text = text.get();
        if text == self.current {
            return Some(());
        }
        if let Some((known, value)) = self.others.iter_mut().find(|(known, _)| known == text) {
            std::mem::swap(known, &mut self.current);
            std::mem::swap(value, field);
            return Some(());
        }
        let value = std::mem::replace(field, serde_json::from_str(text).ok()?);
        // No text of a value is empty, so an empty one is never found.
        let text = if text.len() <= Self::LONGEST { text } else { "" };
        let before = (std::mem::replace(&mut self.current, text.to_owned()), value);
        match self.others.get_mut(self.oldest) {
            Some(oldest) => *oldest = before,
            None => self.others.push(before),
        }
        self.oldest = (self.oldest + 1) % Self::MOST;
        Some(())
    }
}
