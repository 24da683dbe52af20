//! Limits the length of texts in an event. The length in JSON counts, where one control
//! character needs six bytes.

use std::io;

use serde::Serialize;

/// The mark of a cut.
pub const ELLIPSIS: &str = "…";

/// Returns the bytes of a text in JSON, without the quotes.
pub fn json_len(text: &str) -> usize {
    text.bytes().map(in_json).sum()
}

/// Returns the bytes of a value in JSON, or `None` for a value that cannot be written.
pub fn written(value: &impl Serialize) -> Option<usize> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).ok().map(|()| count.0)
}

fn in_json(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Cuts a text so that it has at most `most` bytes in JSON, plus the ellipsis.
pub fn cut_end(text: &mut String, most: usize) {
    // Most texts are short enough whatever they contain.
    if text.len() * 6 <= most {
        return;
    }
    if let Some(end) = head(text, most) {
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
}

/// Cuts a text in the middle to `most` bytes in JSON. The beginning of a path says where the
/// file is, and the end says which file it is.
pub fn cut_middle(text: &mut String, most: usize) {
    if text.len() * 6 <= most || json_len(text) <= most {
        return;
    }
    let end = head(text, most / 2).unwrap_or(text.len());
    let start = tail(text, most / 2);
    let tail = text.get(start..).unwrap_or_default().to_owned();
    text.truncate(end);
    text.push_str(ELLIPSIS);
    text.push_str(&tail);
}

/// Returns where the first `most` bytes in JSON end, or `None` if the text is not longer.
fn head(text: &str, most: usize) -> Option<usize> {
    let mut used = 0;
    text.char_indices().find_map(|(at, char)| {
        used += cost(char);
        (used > most).then_some(at)
    })
}

/// Returns where the last `most` bytes in JSON begin.
fn tail(text: &str, most: usize) -> usize {
    let mut used = 0;
    let first_out = text.char_indices().rev().find(|(_, char)| {
        used += cost(*char);
        used > most
    });
    first_out.map_or(0, |(at, char)| at + char.len_utf8())
}

fn cost(char: char) -> usize {
    u8::try_from(char).ok().filter(u8::is_ascii).map_or(char.len_utf8(), in_json)
}

/// Returns a text like `7, 8 and 9 more`.
pub fn first_of(all: &[impl ToString], most: usize) -> String {
    let first: Vec<_> = all.iter().take(most).map(ToString::to_string).collect();
    match all.len().saturating_sub(most) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_length_is_that_of_the_json(text in "\\PC{0,30}|[\\x00-\\x7f]{0,30}") {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(json_len(&text) + 2, written.len());
        }

        #[test]
        fn a_text_is_cut_where_a_character_ends(text in "[a-z\\x01\"é]{0,60}", most in 0usize..90) {
            let (mut short, mut both) = (text.clone(), text.clone());
            cut_end(&mut short, most);
            cut_middle(&mut both, most);
            let fits = json_len(&text) <= most;
            for cut in [&short, &both] {
                prop_assert_eq!(fits, cut == &text);
                prop_assert!(json_len(cut) <= most + ELLIPSIS.len());
            }
            if !fits {
                prop_assert!(text.starts_with(short.trim_end_matches('…')));
            }
        }
    }

    #[test]
    fn a_path_keeps_its_ends() {
        let mut path = format!("/srv/{}/server (deleted)", "x".repeat(200));
        cut_middle(&mut path, 60);
        assert!(path.starts_with("/srv/x") && path.ends_with("/server (deleted)"), "{path}");
    }
}
