//! Goes over a command line from its beginning to its end, once.

use super::{
    MARK,
    names::{self, Kind},
    tokens,
};

/// An option of one letter, whether the secret may stand right behind it, whether in the
/// next argument, and what is given.
type Letter = (char, bool, bool, Kind);

/// Programs that take a secret in such an option. With mysql's `-p` alone one is asked.
const CLIENTS: [(&[&str], &[Letter]); 15] = [
    (
        &["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlsh", "mariadb"],
        &[('p', true, false, Kind::Secret)],
    ),
    (&["mariadb-dump", "mariadb-admin", "mariadb-import"], &[('p', true, false, Kind::Secret)]),
    (&["sshpass"], &[('p', true, true, Kind::Secret)]),
    (
        &["mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport"],
        &[('p', false, true, Kind::Secret)],
    ),
    (&["redis-cli", "valkey-cli", "keydb-cli"], &[('a', false, true, Kind::Secret)]),
    (
        &["curl"],
        &[
            ('u', true, true, Kind::Secret),
            ('U', true, true, Kind::Secret),
            ('b', true, true, Kind::Key),
        ],
    ),
    (&["http", "https", "xh"], &[('a', true, true, Kind::Pair)]),
    (
        &["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami", "ldapcompare"],
        &[('w', true, true, Kind::Secret)],
    ),
    (
        &["ldappasswd"],
        &[
            ('w', true, true, Kind::Secret),
            ('s', true, true, Kind::Secret),
            ('a', true, true, Kind::Secret),
        ],
    ),
    (
        &["smbclient", "smbget", "rpcclient", "net", "smbcacls", "winexe", "wmic"],
        &[('U', true, true, Kind::Pair)],
    ),
    // `docker login`, `oc login`, `az login`.
    (&["login"], &[('p', false, true, Kind::Secret)]),
    (
        &["sqlcmd", "bcp", "ipmitool", "mosquitto_pub", "mosquitto_sub", "zip", "unzip"],
        &[('P', true, true, Kind::Secret)],
    ),
    (&["7z", "7za", "7zz", "rar", "unrar"], &[('p', true, false, Kind::Secret)]),
    (&["cqlsh", "rabbitmqadmin", "rdesktop"], &[('p', false, true, Kind::Secret)]),
    (
        &["snmpget", "snmpwalk", "snmpbulkwalk", "snmpset", "snmptrap"],
        &[
            ('c', true, true, Kind::Secret),
            ('A', true, true, Kind::Secret),
            ('X', true, true, Kind::Secret),
        ],
    ),
];
/// Ways to prove who one is, by which an `Authorization` header begins.
const SCHEMES: [&str; 7] = ["bearer", "basic", "digest", "token", "negotiate", "apikey", "ntlm"];

/// Headers whose value is several secrets.
const COOKIES: [&str; 2] = ["cookie", "set-cookie"];

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
    client: &'static [Letter],
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
            Next::Value(kind) if is_value(argument, kind) => return hidden(argument, kind),
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
            let safe = if is_value(value, kind) { hidden(value, kind) } else { value.to_owned() };
            return format!("{name}={safe}");
        }
        if let Some((name, _)) = argument.split_once(':')
            && COOKIES.iter().any(|header| header.eq_ignore_ascii_case(name))
        {
            return format!("{name}: {MARK}");
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
                if word.ends_with(';') || matches!(word, "&&" | "||" | "|" | "&") {
                    // Another command, with options of its own.
                    self.client = &[];
                }
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
                return self.value(word, Kind::Secret);
            }
            Next::Value(kind) if is_value(word, kind) => return self.value(word, kind),
            Next::Value(_) | Next::Anything => {}
        }
        if let Some(safe) = self.short_option(word) {
            return safe;
        }
        self.announce(word);
        self.inside(word)
    }

    /// A word that is a secret, or has one behind a user's name, but for the quotes around
    /// it.
    fn value(&mut self, word: &str, kind: Kind) -> String {
        if kind == Kind::Pair
            && let Some(at) = word.find(PAIR)
        {
            let (user, secret) = word.split_at(at + 1);
            return match user.chars().next() {
                Some(quote @ ('"' | '\'')) => format!("{user}{MARK}{}", self.until(quote, secret)),
                _ => format!("{user}{}", self.value(secret, Kind::Secret)),
            };
        }
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
        if let Some(&(_, letters)) = known {
            self.client = letters;
            return None;
        }
        let option = word.strip_prefix('-')?;
        let &(letter, attached, separate, kind) =
            self.client.iter().find(|(letter, ..)| option.starts_with(*letter))?;
        let value = option.get(letter.len_utf8()..)?;
        if value.is_empty() && separate {
            self.next = Next::Value(kind);
            return Some(word.to_owned());
        }
        (attached && is_value(value, kind)).then(|| format!("-{letter}{}", hidden(value, kind)))
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

/// What is between a user's name and the password.
const PAIR: [char; 2] = [':', '%'];

/// What is shown of a value.
fn hidden(value: &str, kind: Kind) -> String {
    let user = value.find(PAIR).filter(|_| kind == Kind::Pair).map_or(0, |at| at + 1);
    format!("{}{MARK}", value.get(..user).unwrap_or_default())
}

/// Whether a word behind a secret's name is the secret: not the next option, and not
/// the path of the file that has the key.
fn is_value(word: &str, kind: Kind) -> bool {
    if word.is_empty() || is_option(word) {
        return false;
    }
    match kind {
        Kind::Secret => true,
        Kind::Key => !["/", "./", "../", "~/"].iter().any(|start| word.starts_with(start)),
        Kind::Pair => word.split_once(PAIR).is_some_and(|(user, secret)| {
            // A URL; a user and a group by their numbers.
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let is_other = secret.starts_with("//") || (is_number(user) && is_number(secret));
            !(secret.is_empty() || is_other)
        }),
    }
}

/// Whether a word looks like an option: `-v`, and `--words-of-small-letters=…`. A
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
