//! Scans a command line once, from its beginning to its end, and remembers what each word says
//! about the next one.

use super::{
    MARK,
    clients::Programs,
    inside,
    names::{self, Kind},
    quotes,
};

/// Authentication schemes at the beginning of an `Authorization` header.
const SCHEMES: [&str; 7] = ["bearer", "basic", "digest", "token", "negotiate", "apikey", "ntlm"];

/// Headers whose value consists of several words.
const LONG_HEADERS: [&str; 2] = ["authorization", "cookie"];

/// The deepest nesting of quotes that is scanned. Anything deeper is redacted.
const MOST_DEPTH: u8 = 8;

/// Characters that may follow a value in the same word.
const FOLLOWS: [char; 7] = [',', ';', ')', '}', ']', '&', '|'];

/// What is known about the next word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Anything,
    /// It is the value of a name of this kind.
    Value(Kind),
    /// It is such a value, unless it looks like a port.
    Unless(Kind),
    /// It and the following words are a header's value, possibly with its scheme first.
    Header { scheme: bool },
}

/// The state between two words.
#[derive(Debug, Default)]
pub struct Scan {
    next: Next,
    /// The kind of value that the previous word names, if an equals sign follows.
    named: Option<Kind>,
    programs: Programs,
    /// Whether a colon does not separate a name and a value: `image:tag`.
    pub(super) of_names: bool,
    /// Whether the text is a script of a shell.
    pub(super) shell: bool,
    /// A secret continues until this many brackets are closed.
    pub(super) brackets: usize,
    depth: u8,
}

impl Scan {
    /// Creates a scan of a text that is not a command line.
    pub fn of_names() -> Self {
        Self { of_names: true, ..Self::default() }
    }

    /// Redacts one argument that is one value.
    pub fn argument(&mut self, argument: &str) -> String {
        let safe = self.word(argument, true);
        self.brackets = 0;
        safe
    }

    /// Redacts one argument that is a script.
    pub fn script(&mut self, script: &str) -> String {
        self.next = Next::Anything;
        Self { shell: true, ..self.within() }.text(script)
    }

    /// Creates a scan of a nested text. Its words have no effect outside.
    fn within(&self) -> Self {
        Self {
            programs: self.programs.within(),
            of_names: self.of_names,
            depth: self.depth + 1,
            ..Self::default()
        }
    }

    /// Redacts a part that contains spaces.
    pub(super) fn nested(&self, text: &str) -> String {
        if self.depth == MOST_DEPTH {
            return MARK.to_owned();
        }
        self.within().argument_text(text)
    }

    /// Redacts the words of an argument. It may be a list whose values contain spaces.
    fn argument_text(&mut self, text: &str) -> String {
        let text = inside::lists(text);
        let text = inside::credentials_with_blanks(&text).unwrap_or(text);
        self.text(&text)
    }

    /// Redacts many words of one text.
    pub fn text(&mut self, text: &str) -> String {
        self.programs.in_text(text);
        let mut safe = String::with_capacity(text.len());
        let mut rest = text;
        loop {
            if self.brackets > 0 {
                let end = quotes::brackets(rest, self.brackets).unwrap_or(rest.len());
                self.brackets = 0;
                rest = rest.get(end..).unwrap_or_default();
            }
            let (blanks, after) = rest.split_at(rest.len() - rest.trim_start().len());
            if self.shell && blanks.contains('\n') {
                self.programs.separate();
                self.next = Next::Anything;
            }
            safe.push_str(blanks);
            if after.is_empty() {
                return safe;
            }
            let (end, is_open) = quotes::word(after, self.shell);
            let (word, after) = after.split_at(end);
            let shown = self.word_of_text(word);
            safe.push_str(&shown);
            if is_open && shown != word {
                // The quote is closed after the text that is known.
                return safe;
            }
            rest = after;
        }
    }

    fn word_of_text(&mut self, word: &str) -> String {
        let may_be_whole = self.next == Next::Anything && self.named.is_none();
        let joined = quotes::joined(word).filter(|_| self.shell);
        let safe = match (joined, quotes::quoted(word, self.shell)) {
            (Some(joined), _) => match self.word(&joined, true) {
                safe if safe == joined => word.to_owned(),
                safe => format!("'{}'", safe.replace('\'', "'\\''")),
            },
            (None, Some((mark, inner, after)))
                if may_be_whole && after.trim_end_matches(quotes::ENDS).is_empty() =>
            {
                format!("{mark}{}{mark}{after}", self.word(inner, true))
            }
            _ => self.word(word, false),
        };
        // A quoted part in a shell is an argument, and has been scanned as one.
        let bare = word.find(['"', '\'']).filter(|_| self.shell).unwrap_or(word.len());
        self.programs.see_within(word.get(..bare).unwrap_or_default());
        if self.shell && (word.ends_with(';') || matches!(word, "&&" | "||" | "|" | "&")) {
            self.programs.separate();
            self.next = Next::Anything;
        }
        safe
    }

    /// Redacts one word. A `whole` word is an argument, and quotes in it are part of it.
    fn word(&mut self, word: &str, whole: bool) -> String {
        if let Some(safe) = self.announced(word, whole) {
            return safe;
        }
        if let Some(safe) = self.short_option(word, whole) {
            return safe;
        }
        if self.programs.is_secret(word, self.shell) {
            return self.hide(word, Kind::Secret, whole);
        }
        if let Some((start, kind)) = inside::assignment(word) {
            let (name, value) = word.split_at(start);
            self.programs.see(name);
            return format!("{name}{}", self.hide(value, kind, whole));
        }
        if let Some(safe) = self.header(word, whole) {
            return safe;
        }
        if whole && word.contains(char::is_whitespace) {
            self.programs.see_text();
            return self.nested(word);
        }
        self.programs.see(word);
        self.announce(word, whole);
        self.inside(word)
    }

    /// Redacts the word, if the previous words say that it is a secret.
    fn announced(&mut self, word: &str, whole: bool) -> Option<String> {
        let named = self.named.take();
        match std::mem::take(&mut self.next) {
            Next::Value(kind) if is_value(word, kind) => return Some(self.hide(word, kind, whole)),
            Next::Unless(kind) if is_value(word, kind) && !is_ports(word) => {
                return Some(self.hide(word, kind, whole));
            }
            Next::Header { scheme } if is_value(word, Kind::Secret) && !word.contains("://") => {
                let is_scheme = scheme && is_scheme(word.trim_matches(['"', '\'']));
                self.next = Next::Header { scheme: false };
                return Some(match is_scheme {
                    true => word.to_owned(),
                    false => self.hide(word, Kind::Secret, whole),
                });
            }
            _ => {}
        }
        let kind = named?;
        if matches!(word, "=" | ":" | ":=" | "=>" | "==") {
            self.next = Next::Value(kind);
            return Some(word.to_owned());
        }
        if word.eq_ignore_ascii_case("by") {
            self.named = Some(kind);
            return None;
        }
        let value = word.strip_prefix(['=', ':']).unwrap_or(word);
        let is_given = value.len() < word.len() || (!whole && quotes::opening(word).is_some());
        let (sign, value) = word.split_at(word.len() - value.len());
        (is_given && is_given_as(value, kind))
            .then(|| format!("{sign}{}", self.hide(value, kind, whole)))
    }

    /// Redacts the secret in a one-letter option, for the programs that have such an option.
    fn short_option(&mut self, word: &str, whole: bool) -> Option<String> {
        let found = self.programs.secret_in(word)?;
        let (before, value) = word.split_at_checked(found.start)?;
        if value.is_empty() && found.may_follow {
            let next = if found.is_doubtful { Next::Unless } else { Next::Value };
            self.next = next(found.kind);
            return Some(word.to_owned());
        }
        if !is_given_as(value, found.kind) || (found.is_doubtful && is_ports(value)) {
            return None;
        }
        if word.bytes().all(inside::is_name) {
            // It may be a long option of another program: `-password`.
            self.next = names::kind(word).map_or(Next::Anything, Next::Value);
        }
        let (value, after) = value.split_at_checked(found.end - found.start)?;
        Some(format!("{before}{}{after}", self.hide(value, found.kind, whole)))
    }

    /// Redacts `Name: value`, which may come after the option for it.
    fn header(&mut self, word: &str, whole: bool) -> Option<String> {
        let colon = word.find(':').filter(|_| !self.of_names)?;
        let (before, value) = (word.get(..colon)?, word.get(colon + 1..)?);
        let name = before.rsplit('=').next()?;
        let name = name.strip_prefix("-H").unwrap_or(name);
        if name.is_empty() || !name.bytes().all(inside::is_name) {
            return None;
        }
        let kind = names::kind(name).filter(|kind| *kind != Kind::Pair)?;
        let is_long = is_long_header(name);
        let value = value.trim_start();
        if value.is_empty() {
            self.next = match is_long {
                true => Next::Header { scheme: true },
                false => Next::Value(kind),
            };
            return Some(word.to_owned());
        }
        let (before, _) = word.split_at(word.len() - value.len());
        let (scheme, more) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        if is_long && is_scheme(scheme) {
            if more.trim().is_empty() {
                self.next = Next::Header { scheme: false };
                return Some(word.to_owned());
            }
            return Some(format!("{before}{scheme} {MARK}"));
        }
        // The name of a secret may also be the scheme of a URL, which contains no spaces.
        let is_url = value.starts_with("//") && !value.contains(char::is_whitespace);
        let is_other = is_url || inside::is_port_of(kind, value);
        let is_given = !is_other && is_given_as(value, kind);
        is_given.then(|| format!("{before}{}", self.hide(value, kind, whole)))
    }

    /// Remembers what the word says about the next one.
    fn announce(&mut self, word: &str, whole: bool) {
        let bare = word.trim_start_matches(['"', '\'', '{', '(', ',', '[', '\\', '$']);
        let end = bare.trim_end_matches(['"', '\'', ',', '\\']);
        let last = end.rsplit([':', '=', '"', '\'']).next().unwrap_or(end);
        let is = |scheme: &str| last.eq_ignore_ascii_case(scheme);
        let is_field = (bare.ends_with(':') && !self.of_names)
            || (bare.ends_with('=') && !(whole || self.shell));
        if is("bearer") || (is("basic") && bare.to_ascii_lowercase().contains("authorization")) {
            self.next = Next::Value(Kind::Secret);
        } else if is_field {
            let name = end.trim_end_matches([':', '=']).trim_end_matches(['"', '\'', '\\']);
            let name = name.rsplit(['"', '\'', ',', '{', '=']).next().unwrap_or(name);
            if let Some(kind) = names::kind(name) {
                self.next = Next::Value(kind);
            }
        } else if last.starts_with('-') && last.len() > 2 && last.bytes().all(inside::is_name) {
            self.next = names::kind(last).map_or(Next::Anything, Next::Value);
        } else if bare.bytes().all(|byte| inside::is_name(byte) || b"\"'\\".contains(&byte)) {
            if self.named.is_some() {
                // `IDENTIFIED BY '…'`
                return;
            }
            let is_sql = last.eq_ignore_ascii_case("identified");
            let name = bare.trim_end_matches(['"', '\'', '\\']);
            let kind = if is_sql { Some(Kind::Secret) } else { names::kind(name) };
            self.named = kind.filter(|_| !self.of_names);
        }
    }

    /// Redacts a value. A whole word is replaced completely. In a text the value ends with its
    /// quote.
    pub(super) fn hide(&mut self, value: &str, kind: Kind, whole: bool) -> String {
        if whole {
            return hidden(value, kind);
        }
        let goes_on = |after: &str| after.is_empty() || after.starts_with(FOLLOWS);
        if let Some((mark, inner, after)) = quotes::quoted(value, self.shell)
            && goes_on(after)
        {
            return format!("{mark}{}{mark}{}", hidden(inner, kind), self.inside(after));
        }
        if value.starts_with(['[', '{']) {
            match quotes::brackets(value, 0) {
                Ok(end) if goes_on(value.get(end..).unwrap_or_default()) => {
                    let after = value.get(end..).unwrap_or_default();
                    return format!("{MARK}{}", self.inside(after));
                }
                Ok(_) => {}
                Err(depth) => {
                    self.brackets = depth;
                    return MARK.to_owned();
                }
            }
        }
        if self.shell
            && !value.contains(['"', '\'', '\\'])
            && let Some(end) = value.find([';', '|', '&', ')'])
        {
            let (value, after) = value.split_at(end);
            return format!("{}{}", hidden(value, kind), self.inside(after));
        }
        let bare = value.trim_end_matches(['"', '\'', ';', ')', '}', ',']);
        format!("{}{}", hidden(bare, kind), value.get(bare.len()..).unwrap_or_default())
    }
}

fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(word))
}

fn is_long_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    LONG_HEADERS.iter().any(|header| name.ends_with(header))
}

/// Returns whether a word is one port, or several separated by colons.
fn is_ports(word: &str) -> bool {
    word.split(':').all(|port| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Characters that separate a user's name and the password.
const PAIR: [char; 2] = [':', '%'];

/// Redacts a value.
fn hidden(value: &str, kind: Kind) -> String {
    let user = value.find(PAIR).filter(|_| kind == Kind::Pair).map_or(0, |at| at + 1);
    format!("{}{MARK}", value.get(..user).unwrap_or_default())
}

/// Returns whether a word after the name of a secret is the secret, and not the next option.
fn is_value(word: &str, kind: Kind) -> bool {
    !is_option(word) && is_given_as(word, kind)
}

/// Returns whether a value after the name of a secret is the secret, and neither the path of
/// the file with the key nor the authentication method.
pub fn is_given_as(word: &str, kind: Kind) -> bool {
    let word = word.trim_start_matches(['"', '\'']);
    match kind {
        _ if word.is_empty() => false,
        Kind::Secret => true,
        Kind::Key => !["/", "./", "../", "~/"].iter().any(|start| word.starts_with(start)),
        Kind::Auth => !names::is_way(word),
        Kind::Pair => word.split_once(PAIR).is_some_and(|(user, secret)| {
            // A URL, or the ids of a user and a group.
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let is_other = secret.starts_with("//") || (is_number(user) && is_number(secret));
            !(secret.is_empty() || is_other)
        }),
    }
}

/// Returns whether a word looks like an option: `-v`, and `--words-of-small-letters=…`. A
/// password may begin with dashes too.
fn is_option(word: &str) -> bool {
    match word.strip_prefix("--") {
        Some(name) => {
            let name = name.split_once('=').map_or(name, |(name, _)| name);
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        }
        None => word.starts_with('-') && word.len() <= 2,
    }
}
