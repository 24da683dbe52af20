//! Redacts secrets in command lines. Secrets are removed before any other code sees the
//! evidence, so diagnosis, sinks and captures have the same text.
//!
//! A secret is recognized by its name ([`names`]) or by its own format ([`tokens`]). Users of
//! the agent add patterns for other secrets.

use regex_lite::Regex;

mod clients;
mod cmdline;
mod inside;
mod names;
mod positions;
mod quotes;
mod scan;
mod scripts;
mod tokens;

pub use cmdline::{Cmdline, MOST_BYTES, Unredacted};
use scan::Scan;
use scripts::Scripts;

/// Replaces a secret.
pub const MARK: &str = "[redacted]";

/// What is redacted.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    patterns: Vec<Regex>,
}

impl Redaction {
    /// Creates a redaction that also removes what `patterns` match: their first group, or the
    /// whole match if they have none. Each argument is matched separately.
    pub fn with(patterns: Vec<Regex>) -> Self {
        Self { patterns }
    }

    /// Redacts a command line for an event.
    pub fn cmdline(&self, raw: &Unredacted) -> Cmdline {
        let is_plain = |word: &str| !word.contains("://") && !tokens::may_begin_in(word);
        let mut arguments = raw.arguments(|word| self.patterns.is_empty() && is_plain(word));
        self.arguments(&mut arguments);
        Cmdline::bounded(arguments, raw.is_cut())
    }

    /// Redacts a name, a path or a reason: a text that is not a command line, where a colon
    /// does not separate a name and a secret.
    pub fn name(text: &mut String) {
        let safe = Scan::of_names().text(text);
        if safe != *text {
            *text = safe;
        }
    }

    /// Redacts the arguments of one command line. The program's name is the first of them.
    fn arguments(&self, cmdline: &mut [String]) {
        let is_title = cmdline.len() == 1;
        let mut scan = Scan::default();
        let mut scripts = Scripts::default();
        for argument in cmdline.iter_mut() {
            // A title that a program has written, and a shell's script, are many words in one
            // argument. Any other argument is one value, including its spaces.
            let safe = match scripts.is_next(argument) {
                true => scan.script(argument),
                false if is_title => scan.text(argument),
                false => scan.argument(argument),
            };
            *argument = self.without_matches(safe);
        }
    }

    fn without_matches(&self, text: String) -> String {
        self.patterns.iter().fold(text, |text, pattern| {
            let all = |found: &regex_lite::Captures<'_>| {
                let whole = found.get(0).map(|whole| (whole.start(), whole.as_str()));
                match (whole, found.get(1)) {
                    (Some((start, whole)), Some(group)) => {
                        let (from, to) = (group.start() - start, group.end() - start);
                        let before = whole.get(..from).unwrap_or_default();
                        let after = whole.get(to..).unwrap_or_default();
                        format!("{before}{MARK}{after}")
                    }
                    _ => MARK.to_owned(),
                }
            };
            match pattern.is_match(&text) {
                true => pattern.replace_all(&text, all).into_owned(),
                false => text,
            }
        })
    }
}

#[cfg(test)]
mod tests;
