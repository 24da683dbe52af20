//! Secrets in command lines never leave the process: they are taken out of the
//! evidence before anybody looks at it, so that diagnosis, sinks and captures know
//! the same text and none of them has to care.
//!
//! What is a secret is told by the name that it is given under ([`names`]), by its own form
//! ([`tokens`]), or by its place among a program's arguments ([`clients`], [`positions`]). Who runs the agent adds patterns for what neither tells.

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

/// What stands in a secret's place.
pub const MARK: &str = "[redacted]";

/// What is taken out.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    patterns: Vec<Regex>,
}

impl Redaction {
    /// Takes out what `patterns` match as well: their first group, or all of it where
    /// they have none. Each argument is looked at by itself.
    pub fn with(patterns: Vec<Regex>) -> Self {
        Self { patterns }
    }

    /// What an event may have of a command line.
    pub fn cmdline(&self, raw: &Unredacted) -> Cmdline {
        let is_plain = |word: &str| !word.contains("://") && !tokens::may_begin_in(word);
        let mut arguments = raw.arguments(|word| self.patterns.is_empty() && is_plain(word));
        self.arguments(&mut arguments);
        Cmdline::bounded(arguments, raw.is_cut())
    }

    /// Takes the secrets out of a name, a path, a reason: of what is no command line, where
    /// a colon says nothing about what stands behind it.
    pub fn name(text: &mut String) {
        let safe = Scan::of_names().text(text);
        if safe != *text {
            *text = safe;
        }
    }

    /// Takes the secrets out of one command line, the program's name first.
    fn arguments(&self, cmdline: &mut [String]) {
        let is_title = cmdline.len() == 1;
        let mut scan = Scan::default();
        let mut scripts = Scripts::default();
        for argument in cmdline.iter_mut() {
            // A title that a program has written, and a shell's script, are many words
            // in one argument; any other argument is one value, spaces and all.
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
