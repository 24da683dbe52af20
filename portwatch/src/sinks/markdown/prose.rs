//! Escapes text in a sentence, so that nothing in it is markup, becomes a link or mentions a
//! user.
//!
//! GitHub and GitLab search for addresses, names and numbers after they have converted the text
//! to HTML, so a backslash does not help. They do not search code.

use crate::text::sanitize::printable;

/// Returns the text as Markdown that displays it unchanged.
pub fn prose(text: &str) -> String {
    let text = printable(text);
    let mut out = String::with_capacity(text.len() + 8);
    // A word between these characters can be written as code: it contains no backtick that
    // would end the code, and no bar that would end a table's cell.
    for piece in text.split_inclusive([' ', '|', '`']) {
        let word = piece.trim_end_matches([' ', '|', '`']);
        let rest = piece.get(word.len()..).unwrap_or_default();
        if is_live(word) {
            out.extend(["`", word, "`"]);
        } else {
            let begin = if out.is_empty() { list_mark(word) } else { 0 };
            let (mark, word) = word.split_at_checked(begin).unwrap_or_default();
            out.push_str(mark);
            if begin > 0 || out.is_empty() && word.starts_with(['-', '+', '=']) {
                out.push('\\');
            }
            escape(word, &mut out);
        }
        escape(rest, &mut out);
    }
    out
}

fn escape(text: &str, out: &mut String) {
    for char in text.chars() {
        if matches!(char, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&') {
            out.push('\\');
        }
        out.push(char);
    }
}

/// Returns the length of the digits of a word that would number a list: `1.` or `1)`.
fn list_mark(word: &str) -> usize {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    match word.get(digits..) {
        Some("." | ")") => digits,
        _ => 0,
    }
}

/// Returns whether a word would be more than text: a URL or an email address, a mention, the
/// number of an issue or a request, a commit, a formula, a label, an emoji.
fn is_live(word: &str) -> bool {
    const MARKS: [char; 5] = ['@', '#', '$', '~', '^'];
    let lower = word.to_ascii_lowercase();
    word.contains(MARKS)
        || ["://", "www.", "mailto:", "xmpp:", "gh-"].iter().any(|part| lower.contains(part))
        || has_reference(word)
        || has_picture(&lower)
        || has_commit(&lower)
}

/// Returns whether a word contains a reference like `!123`, `&123` or `%"1.0"`.
fn has_reference(word: &str) -> bool {
    word.split_inclusive(['!', '&', '%'])
        .skip(1)
        .any(|rest| rest.starts_with(|first: char| first.is_alphanumeric() || first == '"'))
}

/// Returns whether a word contains an emoji like `:tada:`.
fn has_picture(word: &str) -> bool {
    let is_name = |name: &str| {
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
        // Most names that are numbers are ports and minutes, not emoji.
        let is_word = name.bytes().any(|byte| !byte.is_ascii_digit());
        name.bytes().all(in_name) && (is_word || ["100", "1234"].contains(&name))
    };
    let parts = word.split(':').count();
    word.split(':').skip(1).take(parts.saturating_sub(2)).any(is_name)
}

/// Returns whether a word contains seven or more hexadecimal digits, both letters and digits.
fn has_commit(word: &str) -> bool {
    let parts = word.split(|char: char| !char.is_ascii_alphanumeric());
    parts.into_iter().any(|part| {
        let is = |kind: fn(&u8) -> bool| part.bytes().any(|byte| kind(&byte));
        part.len() >= 7
            && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && is(u8::is_ascii_digit)
            && is(u8::is_ascii_alphabetic)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_be_live_is_code() {
        for live in [
            "https://evil.example/a_b",
            "HTTP://evil.example",
            "(ftp://x)",
            "www.evil.example",
            "WWW.evil.example",
            "a@b.example",
            "mailto:a@b.example",
            "@team",
            "@org/team",
            "(@team)",
            "#123",
            "owner/repo#123",
            "GH-123",
            "gh-123",
            "!123",
            "group/project!123",
            "&12",
            "$12",
            "~label",
            "%\"1.0\"",
            "^alert#1",
            "$x^2$",
            ":tada:",
            "a:+1:b",
            "0123456789abcdef0123456789abcdef01234567",
            "owner@0123abc",
            "3f2a1b4",
        ] {
            assert_eq!(prose(live), format!("`{live}`"));
            assert_eq!(prose(&format!("see {live}, or")), format!("see `{live},` or"));
        }
    }

    #[test]
    fn what_is_only_text_stays_so() {
        for text in [
            "tcp 127.0.0.1:8080 is held by java[7]: -Xmx1g, 50% of it!",
            "/srv/app-2.4.1/bin/server",
            "inode 123456789, port 8080/tcp",
            "Restart=always (3 times)",
        ] {
            let shown = prose(text).replace('\\', "");
            assert_eq!(shown, text);
        }
    }

    #[test]
    fn no_word_ends_its_code() {
        assert_eq!(prose("`@a`|`@b"), "\\``@a`\\`\\|\\``@b`");
        assert_eq!(prose("@a\\ b"), "`@a\\` b");
        assert_eq!(prose("- [ ] x"), "\\- \\[ \\] x");
        assert_eq!(prose("-@a"), "`-@a`");
        assert_eq!(prose("1. x 2. y"), "1\\. x 2. y");
        assert_eq!(prose("127.0.0.1:80 1."), "127.0.0.1:80 1.");
    }

    proptest! {
        /// Outside of code nothing remains that becomes a link or a mention.
        #[test]
        fn nothing_live_is_left(text in r"[@#a-z:/.`|\\ !&%0-9w-]{0,40}") {
            let shown = prose(&text);
            let (mut outside, mut chars, mut in_code) = (String::new(), shown.chars(), false);
            while let Some(char) = chars.next() {
                match char {
                    '`' => {
                        in_code = !in_code;
                        outside.push(' ');
                    }
                    _ if in_code => {}
                    '\\' => {
                        // An escaped bar or backtick separates words as well.
                        let escaped = chars.next().unwrap_or(' ');
                        outside.push(if "|`".contains(escaped) { ' ' } else { escaped });
                    }
                    char => outside.push(char),
                }
            }
            prop_assert!(!in_code, "{shown}");
            prop_assert!(!outside.contains(['@']) && !outside.contains("://"), "{shown}");
            prop_assert!(!outside.contains("www.") && !outside.contains("#1"), "{shown}");
        }
    }
}
