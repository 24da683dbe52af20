//! Quotes and brackets, as they are used in shells, JSON and texts of programs.

/// The most backslashes before a quote: each nested shell doubles them.
const MOST_BACKSLASHES: usize = 7;

/// Returns the quote that `text` begins with, including the backslashes before it. A quote that
/// was itself quoted ends with as many backslashes.
pub fn opening(text: &str) -> Option<&str> {
    let backslashes = text.bytes().take(MOST_BACKSLASHES).take_while(|&byte| byte == b'\\').count();
    let is_quote = matches!(text.as_bytes().get(backslashes), Some(b'"' | b'\''));
    text.get(..=backslashes).filter(|_| is_quote)
}

/// Returns where the part that `mark` has opened ends; `text` is the text after the mark. The
/// result is the length without and with the closing quote. In single quotes of a shell a
/// backslash has no meaning.
pub fn closing(text: &str, mark: &str, shell: bool) -> Option<(usize, usize)> {
    let quote = mark.bytes().next_back()?;
    let wanted = mark.len() - 1;
    let mut backslashes = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte == quote {
            let closes = match wanted {
                0 => backslashes % 2 == 0 || (shell && quote == b'\''),
                _ => backslashes == wanted,
            };
            if closes {
                return Some((at - wanted, at + 1));
            }
        }
        backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
    }
    None
}

/// Returns the quoted part at the beginning of `text`: its mark, its content, and the text
/// after it.
pub fn quoted(text: &str, shell: bool) -> Option<(&str, &str, &str)> {
    let mark = opening(text)?;
    let inner = text.get(mark.len()..)?;
    let (without, with) = closing(inner, mark, shell)?;
    Some((mark, inner.get(..without)?, inner.get(with..)?))
}

/// Returns where the first word of `text` ends, at a space outside of quotes, and whether the
/// word has an unclosed quote.
pub fn word(text: &str, shell: bool) -> (usize, bool) {
    let mut rest = text;
    let mut is_open = false;
    while let Some(char) = rest.chars().next() {
        if char.is_whitespace() {
            break;
        }
        let mut chars = rest.chars();
        chars.next();
        let escaped = chars.clone().next().filter(|_| char == '\\');
        // In a shell an escaped quote is an ordinary character; elsewhere it may be a nested
        // quote.
        let is_literal = |char: char| char.is_whitespace() || (shell && matches!(char, '"' | '\''));
        if escaped.is_some_and(is_literal) {
            chars.next();
        } else if let Some((_, _, after)) = quoted(rest, shell) {
            rest = after;
            continue;
        } else {
            is_open |= matches!(char, '"' | '\'');
        }
        rest = chars.as_str();
    }
    (text.len() - rest.len(), is_open)
}

/// Returns a word as a shell reads it, if its quotes begin or end inside the word
/// (`'it'\\''s'`), or `None` if at most its end is in quotes.
pub fn joined(word: &str) -> Option<String> {
    let start = word.find(['"', '\'', '\\'])?;
    let (_, _, after) = quoted(word.get(start..)?, true).unwrap_or_default();
    if !after.contains(['"', '\'', '\\']) && (start > 0 || after.trim_end_matches(ENDS).is_empty())
    {
        return None;
    }
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(char) = rest.chars().next() {
        if char == '\\' {
            rest = rest.get(1..)?;
            text.extend(rest.chars().next());
            rest = rest.get(rest.chars().next().map_or(0, char::len_utf8)..)?;
        } else if let Some((_, inner, after)) = quoted(rest, true) {
            text.push_str(inner.replace("\\\"", "\"").as_str());
            rest = after;
        } else {
            text.push(char);
            rest = rest.get(char.len_utf8()..)?;
        }
    }
    Some(text)
}

/// Characters that may follow a closing quote.
pub const ENDS: [char; 5] = [',', ';', ')', '}', ']'];

/// Returns the length of the text that closes `depth` brackets, or how many are still open at
/// the end.
pub fn brackets(text: &str, mut depth: usize) -> Result<usize, usize> {
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        if let Some((_, _, after)) = quoted(rest, false) {
            rest = after;
            continue;
        }
        rest = rest.get(char.len_utf8()..).unwrap_or_default();
        match char {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return Ok(text.len() - rest.len());
        }
    }
    Err(depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_blanks_outside_of_quotes() {
        for (text, first) in [
            ("a b", "a"),
            ("-p'a b' c", "-p'a b'"),
            ("'a'\\''b c' d", "'a'\\''b c'"),
            ("a\\'b c'd", "a\\'b"),
            ("\"a \\\" b\" c", "\"a \\\" b\""),
            ("a\\ b c", "a\\ b"),
            ("it's so", "it's"),
            ("", ""),
        ] {
            assert_eq!(word(text, true).0, first.len(), "{text}");
        }
        assert_eq!(word("\\\"a b\\\" c", false).0, 7);
        assert!(word("it's", false).1 && !word("'a'", false).1);
        assert_eq!(closing("a\\' b'", "'", true), Some((2, 3)));
        assert_eq!(closing("a\\' b'", "'", false), Some((5, 6)));
    }

    #[test]
    fn parts_are_joined() {
        for (word, text) in [
            ("'a'\\''b c'", Some("a'b c")),
            ("'TOKEN='\"x \\\" y\"", Some("TOKEN=x \" y")),
            ("-p'a b'", None),
            ("'a b';", None),
            ("a", None),
        ] {
            assert_eq!(joined(word).as_deref(), text, "{word}");
        }
    }

    #[test]
    fn brackets_are_counted() {
        assert_eq!(brackets("[\"a]\",[1]],x", 0), Ok(10));
        assert_eq!(brackets("[1,{", 0), Err(2));
        assert_eq!(brackets("1}] x", 2), Ok(3));
    }
}
