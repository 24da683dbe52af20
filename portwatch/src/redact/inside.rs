//! Finds secrets inside one word: after a name, in a URL, before an at sign, and by their own
//! format.

use super::{
    MARK,
    names::{self, Kind},
    quotes,
    scan::{Scan, is_given_as},
    tokens,
};

/// The most URLs in one word. Each is scanned to its end, so words with more URLs are redacted.
const MOST_URLS: usize = 16;

/// Words before a colon that are not user names: `mailto:me@host`.
const NO_USERS: [&str; 13] = [
    "mailto", "sip", "sips", "xmpp", "acct", "npm", "workspace", "github", "email", "mail", "from",
    "to", "cc",
];

/// A name with a value after it, at the end of a text.
struct Named {
    kind: Kind,
    /// The characters that end the value: the separators before the name's field.
    ends: &'static [char],
    /// Whether it is at the position of a URL's host.
    is_host: bool,
}

impl Scan {
    /// Returns a word without its secrets.
    pub(super) fn inside(&mut self, word: &str) -> String {
        let mut safe = String::with_capacity(word.len());
        let mut rest = word;
        let mut at_start = true;
        let mut urls = 0;
        // How many bytes remain after the quote that closes the current part.
        let mut closes: Option<usize> = None;
        let last_at = word.rfind('@').map_or(word.len(), |at| word.len() - at);
        while let Some(char) = rest.chars().next() {
            if closes.is_some_and(|left| rest.len() <= left) {
                let (mark, after) = rest.split_at(quotes::opening(rest).map_or(0, str::len));
                safe.push_str(mark);
                rest = after;
                closes = None;
                at_start = true;
                continue;
            }
            if at_start && let Some(length) = tokens::length(rest) {
                safe.push_str(MARK);
                rest = rest.get(length..).unwrap_or_default();
                at_start = false;
                continue;
            }
            if closes.is_none()
                && let Some((mark, inner, after)) = quotes::quoted(rest, self.shell)
            {
                safe.push_str(mark);
                if inner.contains(char::is_whitespace) {
                    safe.push_str(&self.nested(inner));
                    safe.push_str(mark);
                    rest = after;
                } else {
                    closes = Some(after.len() + mark.len());
                    rest = rest.get(mark.len()..).unwrap_or_default();
                }
                at_start = true;
                continue;
            }
            let after = rest.get(char.len_utf8()..).unwrap_or_default();
            let end = after.len().saturating_sub(closes.unwrap_or_default());
            let (field, beyond) = after.split_at_checked(end).unwrap_or((after, ""));
            if (char == '=' || char == ':' && !self.of_names)
                && !field.is_empty()
                && let Some(named) = name_before(&safe)
                && is_given_as(field, named.kind)
                && !(char == ':' && (named.is_host || is_port_of(named.kind, field)))
            {
                safe.push(char);
                let left = self.assigned(field, &named, &mut safe);
                rest = after.get(field.len() - left..).unwrap_or_default();
                at_start = false;
                continue;
            }
            if char == ':' && field.starts_with("//") {
                urls += 1;
                if urls > MOST_URLS {
                    safe.push_str(MARK);
                    break;
                }
                safe.push_str("://");
                let left = credentials(field.get(2..).unwrap_or_default(), &mut safe).len();
                rest = after.get(field.len() - left..).unwrap_or_default();
                at_start = true;
                continue;
            }
            if char == ':'
                && !self.of_names
                && urls == 0
                && after.len() >= last_at
                && is_user_before(&safe)
                && let Some(at) = password_before_at(field)
            {
                safe.push(':');
                safe.push_str(MARK);
                rest = rest.get(1 + at..).unwrap_or(beyond);
                continue;
            }
            at_start = !char.is_ascii_alphanumeric() && !matches!(char, '_' | '-');
            safe.push(char);
            rest = after;
        }
        safe
    }

    /// Redacts the value at the beginning of `text`, and returns how much text follows it: in a
    /// URL's query and in a connection string more fields follow.
    fn assigned(&mut self, text: &str, named: &Named, safe: &mut String) -> usize {
        let goes_on = |after: &str| after.is_empty() || after.starts_with(is_end_of_value);
        if let Some((mark, _, after)) = quotes::quoted(text, false)
            && goes_on(after)
        {
            safe.push_str(mark);
            safe.push_str(MARK);
            safe.push_str(mark);
            return after.len();
        }
        safe.push_str(MARK);
        if text.starts_with(['[', '{']) {
            match quotes::brackets(text, 0) {
                Ok(end) if goes_on(text.get(end..).unwrap_or_default()) => return text.len() - end,
                Ok(_) => {}
                Err(depth) => {
                    self.brackets = depth;
                    return 0;
                }
            }
        }
        text.find(named.ends).map_or(0, |end| text.len() - end)
    }
}

fn is_end_of_value(char: char) -> bool {
    matches!(char, ',' | ';' | ')' | '}' | ']' | '&' | '"' | '\'' | '\\')
}

/// Returns whether a byte may be part of a name: `user[password]` is a name.
pub fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte)
}

/// Returns where the value starts in `NAME=value`, `--option=NAME=value`.
pub fn assignment(word: &str) -> Option<(usize, Kind)> {
    let mut start = 0;
    loop {
        let rest = word.get(start..)?;
        let end = rest.find('=')?;
        let (name, value) = (rest.get(..end)?, rest.get(end + 1..)?);
        if name.is_empty() || !name.bytes().all(is_name) {
            return None;
        }
        start += end + 1;
        if let Some(kind) = names::kind(name) {
            return is_given_as(value, kind).then_some((start, kind));
        }
    }
}

/// Returns the secret's name that `text` ends with, in quotes or not.
fn name_before(text: &str) -> Option<Named> {
    let bare = text.strip_suffix(['"', '\'']).map(|text| text.trim_end_matches('\\'));
    let name = bare.unwrap_or(text);
    let name = name.strip_suffix("%5D").unwrap_or(name);
    let start = name.bytes().rposition(|byte| !is_name(byte)).map_or(0, |before| before + 1);
    let kind = names::kind(name.get(start..)?)?;
    let before = name.get(..start)?.chars().next_back();
    let ends: &[char] = match before {
        _ if bare.is_some() => &[',', '}', ']', ')'],
        Some('?' | '&') => &['&'],
        Some(';') => &[';'],
        Some(',') => &[','],
        Some('{' | '(') => &[',', '}', ')'],
        _ => &[],
    };
    let is_host = name.get(..start)?.ends_with("//");
    Some(Named { kind, ends, is_host })
}

/// Redacts the password in the text after `://`, up to the host. A password that is not escaped
/// may contain any of the special characters of URLs, so it extends to the last at sign.
fn credentials<'a>(url: &'a str, safe: &mut String) -> &'a str {
    let authority = url.get(..url.find(['/', '?', '#']).unwrap_or(url.len())).unwrap_or_default();
    let Some((user, secret)) = url.split_once(':') else { return url };
    // A user's name may contain an at sign too, and then a port may follow the host.
    let is_password = authority.rfind('@').is_some_and(|at| at > user.len()) || !has_port(secret);
    let Some(at) = url.rfind('@').filter(|_| is_password) else { return url };
    if at < user.len() || user.contains(['/', '?', '#']) {
        return url;
    }
    safe.push_str(user);
    safe.push(':');
    safe.push_str(MARK);
    url.get(at..).unwrap_or_default()
}

/// Returns whether a name and the text after its colon are a host and a port, as in
/// `auth:8080`.
pub fn is_port_of(kind: Kind, text: &str) -> bool {
    kind == Kind::Auth && has_port(text)
}

/// Returns whether the text after a colon begins with a port.
fn has_port(text: &str) -> bool {
    let after = text.trim_start_matches(|char: char| char.is_ascii_digit());
    let ends = |char: char| matches!(char, '/' | '?' | '#' | ',') || char.is_whitespace();
    after.len() < text.len() && (after.is_empty() || after.starts_with(ends))
}

fn is_of_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._%+~-".contains(&byte)
}

/// Returns whether `text` ends with a possible user name.
fn is_user_before(text: &str) -> bool {
    const LONGEST: usize = 128;
    let length = text.bytes().rev().take(LONGEST).take_while(|&byte| is_of_user(byte)).count();
    let (before, user) = text.split_at(text.len() - length);
    let begins = before.is_empty() || before.ends_with(['=', ',', ';', '"', '\'', '(', '{', '[']);
    begins && !user.is_empty() && !NO_USERS.iter().any(|name| name.eq_ignore_ascii_case(user))
}

/// Returns the length of a password before an at sign and a host. A path, a port and a path,
/// and an image's tag are not passwords.
fn password_before_at(text: &str) -> Option<usize> {
    let at = text.rfind('@')?;
    let (secret, host) = (text.get(..at)?, text.get(at + 1..)?);
    let is_digest = ["sha256:", "sha512:"].iter().any(|digest| host.starts_with(digest));
    let is_port = has_port(secret) && !secret.bytes().all(|byte| byte.is_ascii_digit());
    let is_path = secret.starts_with('/') || secret.ends_with('/');
    (!secret.is_empty() && !is_digest && !is_port && !is_path).then_some(at)
}

/// Redacts the values in `a=b;Password=c d;e=f` and `a=b&password=c d`. Values may contain
/// spaces.
pub fn lists(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find([';', '&', '?']) {
        let (before, after) = rest.split_at(at + 1);
        safe.push_str(before);
        rest = after;
        let field = after.trim_start();
        let name = field.split(|char: char| !u8::try_from(char).is_ok_and(is_name)).next();
        let name = name.unwrap_or_default();
        let value = field.get(name.len()..).and_then(|value| value.strip_prefix('='));
        let Some((value, kind)) = value.zip(names::kind(name)) else { continue };
        if !is_given_as(value, kind) {
            continue;
        }
        let end = if before.ends_with(';') { ';' } else { '&' };
        let (shown, left) = match quotes::quoted(value, false) {
            Some((mark, _, left)) if left.is_empty() || left.starts_with(end) => {
                (format!("{mark}{MARK}{mark}"), left)
            }
            _ => (MARK.to_owned(), value.find(end).and_then(|at| value.get(at..)).unwrap_or("")),
        };
        let name = after.get(..after.len() - value.len()).unwrap_or_default();
        safe.push_str(name);
        safe.push_str(&shown);
        rest = left;
    }
    safe.push_str(rest);
    safe
}

/// Redacts the password in an argument that is one URL, or a user and a host
/// (`me:…@tcp(host)/`), and contains spaces.
pub fn credentials_with_blanks(text: &str) -> Option<String> {
    let blank = text.find(char::is_whitespace)?;
    let end = text.rfind('@').filter(|&at| at > blank)?;
    let scheme = text.find("://").filter(|&at| at < blank);
    let start = match scheme {
        Some(at) => at + "://".len(),
        None => text.get(..text.find(':')?)?.rfind('=').map_or(0, |at| at + 1),
    };
    let (user, secret) = text.get(start..end)?.split_once(':')?;
    let is_user = match scheme {
        Some(_) => user.bytes().all(is_of_user),
        None => {
            is_user_before(user)
                && password_before_at(text.get(start + user.len() + 1..)?).is_some()
        }
    };
    let is_secret = is_user && !secret.starts_with(char::is_whitespace) && !has_port(secret);
    let shown = text.get(..start + user.len() + 1)?;
    is_secret.then(|| format!("{shown}{MARK}{}", text.get(end..).unwrap_or_default()))
}
