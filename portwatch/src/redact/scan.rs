//! Goes over a command line from its beginning to its end, once.

use super::{
    MARK,
    names::{self, Kind},
    tokens,
};

/// Programs that take a secret in an option of one letter: its letter, whether it may
/// stand right behind it, and whether in the next argument. With mysql's `-p` alone
/// one is asked.
const CLIENTS: [(&[&str], char, bool, bool); 6] = [
    (&["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb"], 'p', true, false),
    (&["mariadb-dump", "mariadb-admin", "mariadb-import"], 'p', true, false),
    (&["sshpass"], 'p', true, true),
    (&["mongo", "mongosh", "mongodump"], 'p', false, true),
    (&["redis-cli"], 'a', false, true),
    (&["curl"], 'u', true, true),
];
/// Ways to prove who one is, by which an `Authorization` header begins.
const SCHEMES: [&str; 7] = ["bearer", "basic", "digest", "token", "negotiate", "apikey", "ntlm"];

/// URLs in one word. Each is looked through to its end, so what has more is taken out.
const MOST_URLS: usize = 16;

/// What has been said of the word that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Anything,
    /// It is given under such a name.
    Value(Kind),
    /// It is an authorization's scheme, or the secret itself.
    Authorization,
    /// It goes on with a secret up to this quote.
    Quoted(char),
}

/// The state between two words.
#[derive(Debug, Default)]
pub struct Scan {
    next: Next,
    client: Option<(char, bool, bool)>,
    /// A colon does not give what is before it a value: `image:tag`.
    of_names: bool,
}

impl Scan {
    /// A scan of what is no command line.
    pub fn of_names() -> Self {
        Self { of_names: true, ..Self::default() }
    }

    /// One argument that is one value.
    pub fn argument(&mut self, argument: &str) -> String {
        match std::mem::take(&mut self.next) {
            Next::Value(kind) if is_value(argument, kind) => return MARK.to_owned(),
            // The header's value has spaces in it, or is an argument of its own.
            Next::Authorization if !argument.contains(char::is_whitespace) => {
                self.next = Next::Authorization;
                return self.word(argument);
            }
            _ => {}
        }
        if let Some((name, value)) = argument.split_once('=')
            && name.bytes().all(is_name)
            && let Some(kind) = names::kind(name)
        {
            let safe = if is_value(value, kind) { MARK } else { value };
            return format!("{name}={safe}");
        }
        let safe = self.text(argument);
        if argument.contains(char::is_whitespace) {
            // Its words are its own.
            self.next = Next::Anything;
        }
        safe
    }

    /// Many words in one text.
    pub fn text(&mut self, text: &str) -> String {
        let mut safe = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let blank = rest.len() - rest.trim_start().len();
            let (spaces, after) = rest.split_at(blank);
            if !matches!(self.next, Next::Quoted(_)) {
                safe.push_str(spaces);
            }
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            let (word, after) = after.split_at(end);
            if !word.is_empty() {
                safe.push_str(&self.word(word));
            }
            rest = after;
        }
        safe
    }

    fn word(&mut self, word: &str) -> String {
        match std::mem::take(&mut self.next) {
            Next::Quoted(quote) => return self.until(quote, word),
            Next::Authorization => {
                let bare = word.trim_matches(['"', '\'']);
                if SCHEMES.iter().any(|scheme| scheme.eq_ignore_ascii_case(bare)) {
                    self.next = Next::Value(Kind::Secret);
                    return word.to_owned();
                }
                return self.value(word);
            }
            Next::Value(kind) if is_value(word, kind) => return self.value(word),
            Next::Value(_) | Next::Anything => {}
        }
        if let Some(safe) = self.short_option(word) {
            return safe;
        }
        self.announce(word);
        self.inside(word)
    }

    /// A word that is a secret, but for the quotes around it.
    fn value(&mut self, word: &str) -> String {
        match word.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                format!("{quote}{MARK}{}", self.until(quote, word.get(1..).unwrap_or_default()))
            }
            _ => {
                let bare = word.trim_end_matches(['"', '\'', ';', ')', '}', ',']);
                format!("{MARK}{}", word.get(bare.len()..).unwrap_or_default())
            }
        }
    }

    /// What follows in `word` behind the quote that ends a secret.
    fn until(&mut self, quote: char, word: &str) -> String {
        match word.split_once(quote) {
            Some((_, after)) => format!("{quote}{}", self.inside(after)),
            None => {
                self.next = Next::Quoted(quote);
                String::new()
            }
        }
    }

    /// The secret in an option of one letter, of the programs that have one.
    fn short_option(&mut self, word: &str) -> Option<String> {
        let name = word.rsplit('/').next().unwrap_or(word);
        let known = CLIENTS.iter().find(|(clients, ..)| clients.contains(&name));
        if let Some(&(_, letter, attached, separate)) = known {
            self.client = Some((letter, attached, separate));
            return None;
        }
        let (letter, attached, separate) = self.client?;
        let value = word.strip_prefix('-')?.strip_prefix(letter)?;
        if value.is_empty() && separate {
            self.next = Next::Value(Kind::Secret);
            return Some(word.to_owned());
        }
        (attached && !value.is_empty()).then(|| format!("-{letter}{MARK}"))
    }

    /// What the word says of the next one.
    fn announce(&mut self, word: &str) {
        let bare = word.trim_start_matches(['"', '\'', '{', '(', ',']);
        let last = bare.trim_end_matches(['"', '\'']).rsplit([':', '=', '"', '\'']).next();
        let is = |scheme: &str| last.is_some_and(|last| last.eq_ignore_ascii_case(scheme));
        self.next = if is("bearer") || (is("basic") && contains_authorization(bare)) {
            Next::Value(Kind::Secret)
        } else if let Some(name) = bare.strip_suffix(':').filter(|_| !self.of_names) {
            let name = name.trim_end_matches(['"', '\'']);
            match names::kind(name.rsplit(['"', '\'', ',', '{']).next().unwrap_or(name)) {
                Some(_) if contains_authorization(name) => Next::Authorization,
                Some(kind) => Next::Value(kind),
                None => Next::Anything,
            }
        } else if bare.len() > 2 && bare.starts_with('-') && bare.bytes().all(is_name) {
            names::kind(bare).map_or(Next::Anything, Next::Value)
        } else {
            Next::Anything
        };
    }

    /// Secrets in a word: behind a name, in a URL, and by their own form.
    fn inside(&mut self, word: &str) -> String {
        let mut safe = String::with_capacity(word.len());
        let mut rest = word;
        let mut at_start = true;
        let mut urls = 0;
        while let Some(char) = rest.chars().next() {
            if at_start && let Some(length) = tokens::length(rest) {
                safe.push_str(MARK);
                rest = rest.get(length..).unwrap_or_default();
                at_start = false;
                continue;
            }
            let after = rest.get(char.len_utf8()..).unwrap_or_default();
            if (char == '=' || char == ':' && !self.of_names)
                && let Some(kind) = name_before(&safe)
                && !after.is_empty()
                && is_value(after, kind)
            {
                let open = open_quote(&safe);
                safe.push(char);
                rest = self.assigned(after, open, &mut safe);
                continue;
            }
            if char == ':' && after.starts_with("//") {
                urls += 1;
                if urls > MOST_URLS {
                    safe.push_str(MARK);
                    break;
                }
                safe.push_str("://");
                rest = credentials(after.get(2..).unwrap_or_default(), &mut safe);
                at_start = true;
                continue;
            }
            at_start = !char.is_ascii_alphanumeric() && !matches!(char, '_' | '-');
            safe.push(char);
            rest = after;
        }
        safe
    }

    /// Takes the value at the beginning of `text` out, and gives what follows it: in a
    /// URL's query and in a connection string there is more. `open` is a quote that has
    /// begun before the name.
    fn assigned<'a>(&mut self, text: &'a str, open: Option<char>, safe: &mut String) -> &'a str {
        if let Some(quote @ ('"' | '\'')) = text.chars().next() {
            let inner = text.get(1..).unwrap_or_default();
            safe.push(quote);
            safe.push_str(MARK);
            return match inner.find(quote) {
                Some(end) => inner.get(end..).unwrap_or_default(),
                None => {
                    self.next = Next::Quoted(quote);
                    ""
                }
            };
        }
        safe.push_str(MARK);
        let end = text.find(['&', ';', '"', '\'']);
        if let (None, Some(quote)) = (end, open) {
            self.next = Next::Quoted(quote);
        }
        text.get(end.unwrap_or(text.len())..).unwrap_or_default()
    }
}

/// The quote right before the name that `text` ends with.
fn open_quote(text: &str) -> Option<char> {
    let before = text.trim_end_matches(|char: char| u8::try_from(char).is_ok_and(is_name));
    before
        .chars()
        .next_back()
        .filter(|char| before.len() < text.len() && matches!(char, '"' | '\''))
}

/// The kind of the name that `text` ends with, in quotes or not.
fn name_before(text: &str) -> Option<Kind> {
    let text = text.strip_suffix(['"', '\'']).unwrap_or(text);
    let start = text.bytes().rposition(|byte| !is_name(byte)).map_or(0, |before| before + 1);
    names::kind(text.get(start..)?)
}

/// What follows `://`, up to where a host begins: a password is taken out. One that is
/// not escaped as it should be may have any of URL's own characters in it.
fn credentials<'a>(text: &'a str, safe: &mut String) -> &'a str {
    let end = text.find(['"', '\'', '<', '>']).unwrap_or(text.len());
    let url = text.get(..end).unwrap_or_default();
    let authority = url.get(..url.find(['/', '?', '#']).unwrap_or(url.len())).unwrap_or_default();
    let Some((user, secret)) = url.split_once(':') else { return text };
    let port = secret.split(['/', '?', '#', ',']).next().unwrap_or_default();
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let at = match authority.rfind('@') {
        Some(at) => at,
        None if is_port => return text,
        None => match url.rfind('@') {
            Some(at) => at,
            None => return text,
        },
    };
    if at < user.len() {
        return text;
    }
    safe.push_str(user);
    safe.push(':');
    safe.push_str(MARK);
    text.get(at..).unwrap_or_default()
}

fn contains_authorization(word: &str) -> bool {
    word.to_ascii_lowercase().contains("authorization")
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)
}

/// Whether a word behind a secret's name is the secret: not the next option, and not
/// the path of the file that has the key.
fn is_value(word: &str, kind: Kind) -> bool {
    let is_option = word.starts_with("--") || (word.starts_with('-') && word.len() <= 2);
    let is_path = ["/", "./", "../", "~/"].iter().any(|start| word.starts_with(start));
    !(is_option || word.is_empty() || kind == Kind::Key && is_path)
}
