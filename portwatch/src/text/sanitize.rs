//! Text from processes is hostile. Characters that could move a terminal's cursor, change its
//! colours or reorder its text are escaped.

use std::borrow::Cow;

/// Returns `text` with control and bidirectional characters as escapes.
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

/// Returns whether a character is visible, does not move, and is what it looks like. It is not
/// a control character, not a separator other than the space, and not a character that is
/// invisible or changes the order of others.
pub fn is_harmless(char: char) -> bool {
    let is_plain = matches!(char, ' '..='~');
    is_plain || !(char.is_control() || char.is_whitespace() || is_invisible(char))
}

/// Returns whether a character is in Unicode's Default_Ignorable_Code_Point
/// (DerivedCoreProperties.txt, Unicode 16), another invisible character of category Cf, a
/// noncharacter, or one of a few with a blank shape.
fn is_invisible(char: char) -> bool {
    let is_noncharacter = u32::from(char) & 0xfffe == 0xfffe;
    is_noncharacter
        || matches!(char,
            // Default_Ignorable_Code_Point: soft hyphen, joiners, fillers of Hangul,
            // inherent vowels of Khmer, directions, variation selectors, tags.
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
            // Other format characters: interlinear annotation, Egyptian arrangement.
            | '\u{fff9}'..='\u{fffb}' | '\u{13430}'..='\u{1345f}'
            // Noncharacters; the blank of Braille, the empty note head, Khitan's filler.
            | '\u{fdd0}'..='\u{fdef}' | '\u{2800}' | '\u{1d159}' | '\u{16fe4}')
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

    /// Accents that stand alone, signs of Indic scripts, emoji: all that people write.
    #[test]
    fn what_is_seen_stays() {
        for text in ["e\u{301}", "हिन्दी", "ไทย", "עברית", "한국어", "日本語", "🦀", "±§—…", "½ µs"]
        {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn what_is_not_seen_is_shown() {
        for char in [
            '\u{ad}', '\u{34f}', '\u{115f}', '\u{1160}', '\u{17b4}', '\u{17b5}', '\u{180e}',
            '\u{2028}', '\u{2029}', '\u{2065}', '\u{2800}', '\u{3000}', '\u{3164}', '\u{a0}',
            '\u{fe0f}', '\u{ffa0}', '\u{fff9}', '\u{fffb}', '\u{ffff}', '\u{e0001}', '\u{e0041}',
            '\u{e007f}', '\u{e0100}', '\u{e01ef}', '\u{1d173}',
        ] {
            let shown = printable(&format!("a{char}b")).into_owned();
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(char)));
        }
    }

    /// What the standard library escapes is escaped here, except characters that it does not
    /// know (unassigned) or that have no meaning (private use).
    #[test]
    fn format_characters_and_separators_are_as_in_the_standard_library() {
        let text = |char| format!("a{char}");
        let printed = |char| text(char).escape_debug().to_string() == text(char);
        let known = [
            '\u{ad}'..='\u{ad}',
            '\u{1680}'..='\u{1680}',
            '\u{180e}'..='\u{180e}',
            '\u{2000}'..='\u{200f}',
            '\u{2028}'..='\u{202f}',
            '\u{205f}'..='\u{206f}',
            '\u{fff9}'..='\u{fffb}',
            '\u{e0001}'..='\u{e0001}',
            '\u{e0020}'..='\u{e007f}',
        ];
        for char in known.into_iter().flatten() {
            assert!(!printed(char) && !is_harmless(char), "{char:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_harmful_is_left(text: String) {
            prop_assert!(printable(&text).chars().all(is_harmless));
        }
    }
}
