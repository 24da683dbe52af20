//! Secrets in command lines never leave the process: they are taken out of the
//! evidence before anybody looks at it, so that diagnosis, sinks and captures know
//! the same text and none of them has to care.
//!
//! What is a secret is told by the name that it is given under ([`names`]) or by its
//! own form ([`tokens`]). Who runs the agent adds patterns for what neither tells.

use regex_lite::Regex;

use crate::evidence::{Evidence, Process};

mod names;
mod scan;
mod tokens;

use scan::Scan;

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

    /// Takes the secrets out of all command lines in the evidence.
    pub fn evidence(&self, evidence: &mut Evidence) {
        self.process(&mut evidence.process);
        for socket in &mut evidence.sockets {
            socket.holders.iter_mut().for_each(|holder| self.process(holder));
            if let Some(binder) = &mut socket.binder {
                self.arguments(&mut binder.cmdline);
            }
        }
        for gone in [&mut evidence.last_holder, &mut evidence.previous_holder] {
            gone.iter_mut().for_each(|holder| self.process(&mut holder.process));
        }
    }

    fn process(&self, process: &mut Process) {
        self.arguments(&mut process.cmdline);
        // What a shell runs is a part of its command line.
        if let Some(name) = process.supervisor.as_mut().and_then(|by| by.name.as_mut()) {
            let mut text = [std::mem::take(name)];
            self.arguments(&mut text);
            let [text] = text;
            *name = text;
        }
    }

    /// Takes the secrets out of one command line, the program's name first.
    pub fn arguments(&self, cmdline: &mut [String]) {
        let is_title = cmdline.len() == 1;
        let mut scan = Scan::default();
        let mut before = String::new();
        for argument in cmdline.iter_mut() {
            // A title that a program has written, and a shell's script, are many words
            // in one argument; any other argument is one value, spaces and all.
            let is_text = is_title || matches!(before.as_str(), "-c" | "-lc" | "-e" | "-ec");
            let safe = if is_text { scan.text(argument) } else { scan.argument(argument) };
            before = std::mem::replace(argument, self.without_matches(safe));
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
