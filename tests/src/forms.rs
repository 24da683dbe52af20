//! The table of commands in docs/diagnosis.md: the form of each command that portwatch prints, and
//! the test that runs it.

use std::sync::LazyLock;

/// The document with the table.
const DOCUMENT: &str = include_str!("../../docs/diagnosis.md");

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The command; words in capitals stand for what is filled in.
    pub command: String,
    /// The tests that run it, or why none does.
    pub test: String,
}

/// What a word in capitals stands for.
#[derive(Clone, Copy)]
enum Blank {
    /// Numbers, with a blank between two of them.
    Numbers,
    /// Hexadecimal digits.
    Hex,
    /// An argument, as a shell takes it.
    Word,
    /// Arguments, with a blank between two of them.
    Words,
    /// What enters a network namespace, if that is not the host's.
    Enter,
    /// What makes it another user's command, if that is not root's.
    AsUser,
}

/// Longer names first.
const BLANKS: &[(&str, Blank)] = &[
    ("AS_USER ", Blank::AsUser),
    ("ENTER ", Blank::Enter),
    ("PORT_HEX", Blank::Hex),
    ("PROTOCOL", Blank::Word),
    ("ADDRESS", Blank::Word),
    ("SECONDS", Blank::Numbers),
    ("NUMBER", Blank::Numbers),
    ("VALUE", Blank::Word),
    ("UNITS", Blank::Words),
    ("PIDS", Blank::Numbers),
    ("PORT", Blank::Numbers),
    ("FILE", Blank::Word),
    ("NAME", Blank::Word),
    ("USER", Blank::Word),
    ("UID", Blank::Word),
    ("PID", Blank::Numbers),
];

/// Returns the rows of the table.
#[must_use]
pub fn rows() -> &'static [Row] {
    static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
        let (_, table) = DOCUMENT.split_once("| class | manager | command |").unwrap();
        let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        lines.map(row).collect()
    });
    &ROWS
}

fn row(line: &str) -> Row {
    // A bar inside a cell has a backslash.
    let line = line.replace("\\|", "\0");
    let cell = |number: usize| {
        let cell = line.split('|').nth(number).unwrap_or_default();
        cell.trim().replace('\0', "|")
    };
    let command = cell(3);
    Row { command: command.trim_matches('`').to_owned(), test: cell(4) }
}

/// Returns whether a command has the form of a row, or is several that have, one after the other.
#[must_use]
pub fn is_known(command: &str) -> bool {
    let rows = rows();
    let has_form = |command: &str| rows.iter().any(|row| fits(&row.command, command));
    has_form(command)
        || command.match_indices("; ").any(|(at, between)| {
            has_form(&command[..at]) && is_known(&command[at + between.len()..])
        })
}

/// Returns whether a text is this form with its blanks filled in.
fn fits(form: &str, text: &str) -> bool {
    let is_inside =
        |at: usize| form[..at].ends_with(|last: char| last.is_ascii_uppercase() || last == '_');
    let blanks = BLANKS.iter().filter_map(|&(name, blank)| Some((form.find(name)?, name, blank)));
    // The first; of those that begin there, the longest, which is listed first.
    let first = blanks.filter(|(at, ..)| !is_inside(*at)).min_by_key(|(at, ..)| *at);
    let Some((at, name, blank)) = first else { return form == text };
    let Some(text) = text.strip_prefix(&form[..at]) else { return false };
    let after = &form[at + name.len()..];
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.filter(|&end| blank.takes(&text[..end])).any(|end| fits(after, &text[end..]))
}

impl Blank {
    fn takes(self, text: &str) -> bool {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match self {
            Self::Numbers => text.split(' ').all(is_number),
            Self::Hex => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            Self::Word => words(text) == Some(1),
            Self::Words => words(text).is_some_and(|words| words > 0),
            Self::Enter => {
                text.is_empty()
                    || fits("ip netns exec NAME ", text)
                    || fits("nsenter -t PID -n ", text)
            }
            Self::AsUser => {
                let number = "setpriv --reuid=UID --regid=UID --clear-groups";
                text.is_empty()
                    || fits("runuser -u USER -- ", text)
                    || fits(&format!("{number} -- "), text)
                    || fits(&format!("{number} --reset-env -- "), text)
            }
        }
    }
}

/// How many arguments a shell reads from a text; `None` if it is no list of them, with one blank
/// between two.
fn words(text: &str) -> Option<usize> {
    let (mut count, mut quote, mut is_empty) = (1, None, true);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(end), _) if char == end => quote = None,
            (Some('"'), '\\') | (None, '\\') => {
                chars.next()?;
            }
            (None, '\'' | '"') => quote = Some(char),
            (None, ' ') if is_empty => return None,
            (None, ' ') => count += 1,
            (None, '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' | '\n') => return None,
            _ => {}
        }
        is_empty = quote.is_none() && char == ' ';
    }
    (quote.is_none() && !is_empty).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_filled_in() {
        for (form, text) in [
            ("kill PIDS", "kill 12 13"),
            ("systemctl stop UNITS", "systemctl stop 'a b.service' c.service"),
            ("ENTER ss -tanp 'sport = :PORT'", "ss -tanp 'sport = :80'"),
            ("ENTER ss -tanp 'sport = :PORT'", "nsenter -t 7 -n ss -tanp 'sport = :80'"),
            ("AS_USER pm2 stop NAME", "runuser -u 'it'\\''s' -- pm2 stop web"),
            (
                "AS_USER sv down FILE",
                "setpriv --reuid=7 --regid=7 --clear-groups -- sv down /home/a/web",
            ),
            ("grep -hs ':PORT_HEX ' /proc/net/icmp", "grep -hs ':1F90 ' /proc/net/icmp"),
            ("env PM2_HOME=FILE pm2 list", "env PM2_HOME=/home/a/.pm2 pm2 list"),
            ("systemctl --user --machine=USER@ stop UNITS", "systemctl --user --machine=a@ stop b"),
        ] {
            assert!(fits(form, text), "{form}: {text}");
        }
        for (form, text) in [
            ("kill PIDS", "kill -9 12"),
            ("kill PIDS", "kill 12; reboot"),
            ("docker stop NAME", "docker stop web shop"),
            ("docker stop NAME", "docker stop $(reboot)"),
            ("docker stop NAME", "docker stop web;reboot"),
            ("docker stop NAME", "docker stop "),
        ] {
            assert!(!fits(form, text), "{form}: {text}");
        }
    }

    #[test]
    fn one_command_may_be_several() {
        for command in ["kill 12; kill -CONT 12", "kill 1 2; kill -KILL 3"] {
            assert!(is_known(command), "{command}");
        }
        assert!(!is_known("kill 12; reboot") && !is_known("reboot"));
    }

    #[test]
    fn each_row_has_a_test_or_the_reason() {
        let rows = rows();
        for row in rows {
            let tried = row.test.contains("::") || row.test.starts_with("not tried: ");
            assert!(tried && !row.command.is_empty(), "{row:?}");
        }
        assert!(rows.len() > 30, "{} rows", rows.len());
    }
}
