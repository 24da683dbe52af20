//! Text from processes is hostile: what could move a terminal's cursor, change
//! its colours or reorder its text is shown escaped.

use std::borrow::Cow;

/// `text` with control and bidirectional characters as escapes.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_harmless(char) { out.push(char) } else { out.extend(char.escape_default()) }
    }
    Cow::Owned(out)
}

/// Not a control (C0, DEL, C1), and none of Unicode's characters that change
/// direction or cannot be seen (UAX #9, and the zero-width ones).
fn is_harmless(char: char) -> bool {
    !char.is_control()
        && !matches!(char,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_and_directions_are_shown() {
        assert_eq!(printable("a\x1b[31mb"), "a\\u{1b}[31mb");
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(printable("two\nlines"), "two\\nlines");
        assert!(matches!(printable("größe"), Cow::Borrowed("größe")));
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text: String) {
            prop_assert!(printable(&text).chars().all(is_harmless));
        }
    }
}
