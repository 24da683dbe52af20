//! Command lines before and after the redaction.

use std::{fmt, str::SplitTerminator, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::bounds::{self, ELLIPSIS};

/// The most bytes of JSON that the arguments of one process take in an event.
pub const MOST_BYTES: usize = 4096;
/// The most bytes of JSON of one argument: after a long one (a class path) others still fit.
const MOST_OF_ONE: usize = 2048;
/// The most arguments.
const MOST_ARGUMENTS: usize = 256;

/// Arguments of a process, with their secrets. Only [`Redaction`](super::Redaction) reads
/// them, and neither evidence nor a log can contain them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Unredacted {
    bytes: Vec<u8>,
    /// Whether there are more than were read.
    cut: bool,
}

impl Unredacted {
    /// Creates it from arguments that each end with a NUL, as in `/proc/PID/cmdline`; `cut` if
    /// there were more.
    pub fn new(bytes: impl Into<Vec<u8>>, cut: bool) -> Self {
        Self { bytes: bytes.into(), cut }
    }

    /// Returns whether nothing is known of them.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns whether there are more than these.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Returns whether these are all of them. A title that exceeds the space of the arguments,
    /// as setproctitle(3) writes it, has no NUL at its end there.
    pub fn is_whole(&self) -> bool {
        !self.cut && self.bytes.ends_with(&[0])
    }

    /// Returns one text each. Two or more empty ones at the end are padding: a program has
    /// written its own title over its arguments. A word that is cut is returned only if
    /// `may_show` allows it: a part of a secret cannot be recognized by its format.
    pub(super) fn arguments(&self, may_show: impl FnOnce(&str) -> bool) -> Vec<String> {
        let bytes = self.bytes.as_slice();
        let in_word = self.cut && !bytes.ends_with(&[0]);
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        let bytes = if bytes.ends_with(&[0, 0]) {
            let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            bytes.get(..end).unwrap_or_default()
        } else {
            bytes
        };
        if bytes.is_empty() {
            return Vec::new();
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut arguments: Vec<_> = bytes.split(|&byte| byte == 0).map(text).collect();
        if let Some(last) = arguments.last_mut().filter(|_| in_word) {
            let end = last.char_indices().rev().find(|(_, char)| char.is_whitespace());
            let word = end.map_or(0, |(at, char)| at + char.len_utf8());
            if !may_show(last.get(word..).unwrap_or_default()) {
                last.truncate(word);
            }
        }
        arguments
    }
}

impl fmt::Debug for Unredacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of arguments", self.bytes.len())
    }
}

/// Ends each argument. No argument of a process contains it.
const END: char = '\0';

/// Arguments without secrets, as in an event: a list of texts of at most 4 KiB. An ellipsis
/// marks a cut. Clones share one copy, and all arguments are one text, so that many short
/// arguments take no more memory than a long one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Cmdline(Arc<str>);

impl Cmdline {
    /// Returns whether nothing is known of them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the arguments, the program's name first.
    pub fn iter(&self) -> SplitTerminator<'_, char> {
        self.0.split_terminator(END)
    }

    /// Returns the program's name, or the title that it has given itself.
    pub fn first(&self) -> Option<&str> {
        self.iter().next()
    }

    /// A NUL is possible only in a line that another program wrote.
    fn of(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut all = String::new();
        for argument in arguments {
            all.extend(argument.chars().map(|char| match char {
                END => char::REPLACEMENT_CHARACTER,
                char => char,
            }));
            all.push(END);
        }
        Self(all.into())
    }

    /// Creates it within the limits, with an ellipsis where something is cut.
    pub(super) fn bounded(arguments: Vec<String>, cut: bool) -> Self {
        const AROUND: usize = "\"\",".len();
        let mut left = MOST_BYTES - "[]".len();
        let mut kept = Vec::with_capacity(arguments.len().min(MOST_ARGUMENTS));
        let mut all = true;
        for mut argument in arguments {
            let most = left.saturating_sub(2 * (AROUND + ELLIPSIS.len())).min(MOST_OF_ONE);
            if kept.len() + 1 == MOST_ARGUMENTS || most == 0 {
                all = false;
                break;
            }
            bounds::cut_end(&mut argument, most);
            left -= bounds::json_len(&argument) + AROUND;
            kept.push(argument);
        }
        match kept.last_mut() {
            Some(last) if all && cut => last.push_str(ELLIPSIS),
            _ if !all => kept.push(ELLIPSIS.to_owned()),
            _ => {}
        }
        Self::of(kept)
    }
}

impl<'a> IntoIterator for &'a Cmdline {
    type Item = &'a str;
    type IntoIter = SplitTerminator<'a, char>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Cmdline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl Serialize for Cmdline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

/// The writer of an event has already redacted it.
impl<'de> Deserialize<'de> for Cmdline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(Vec::<String>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Cmdline {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cmdline".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Vec::<String>::json_schema(generator)
    }
}

#[cfg(test)]
impl From<Vec<String>> for Cmdline {
    fn from(arguments: Vec<String>) -> Self {
        Self::of(arguments)
    }
}

#[cfg(test)]
impl FromIterator<String> for Cmdline {
    fn from_iter<I: IntoIterator<Item = String>>(arguments: I) -> Self {
        Self::of(arguments)
    }
}

#[cfg(test)]
impl Extend<String> for Cmdline {
    fn extend<I: IntoIterator<Item = String>>(&mut self, more: I) {
        *self = Self::of(self.iter().map(str::to_owned).chain(more));
    }
}

#[cfg(test)]
impl<const N: usize> PartialEq<[&str; N]> for Cmdline {
    fn eq(&self, other: &[&str; N]) -> bool {
        self.iter().eq(other.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redact::Redaction;

    fn shown(bytes: &[u8], cut: bool) -> Cmdline {
        Redaction::default().cmdline(&Unredacted::new(bytes, cut))
    }

    #[test]
    fn arguments_end_with_a_nul_and_titles_are_padded() {
        assert_eq!(shown(b"java\0-jar\0", false), ["java", "-jar"]);
        assert_eq!(shown(b"a\0\0b\0", false), ["a", "", "b"]);
        assert_eq!(shown(b"a\0\0", false), ["a", ""]);
        assert_eq!(shown(b"title\0\0\0\0", false), ["title"]);
        assert_eq!(shown(b"cut", false), ["cut"]);
        assert_eq!(shown(b"nginx: master\0\0\0\0", false), ["nginx: master"]);
        assert!(shown(b"", false).is_empty() && shown(b"\0", false).is_empty());
    }

    #[test]
    fn a_part_of_a_secret_is_not_shown() {
        assert_eq!(shown(b"app\0postgres://me:hunt", true), ["app", "…"]);
        assert_eq!(shown(b"app\0--token\0hunt", true), ["app", "--token", "[redacted]…"]);
        assert_eq!(
            shown(b"java\0-cp\0/opt/a.jar:/opt/b", true),
            ["java", "-cp", "/opt/a.jar:/opt/b…"]
        );
        let redaction = Redaction::with(vec![regex_lite::Regex::new("pin[0-9]{4}").unwrap()]);
        assert_eq!(redaction.cmdline(&Unredacted::new(b"app\0pin123", true)), ["app", "…"]);
        assert_eq!(shown(b"sh\0-c\0exec app ghp_012345678", true), ["sh", "-c", "exec app …"]);
        assert_eq!(shown(b"app\0-v\0", true), ["app", "-v…"], "cut between two");
    }

    #[test]
    fn a_long_argument_leaves_room_for_those_behind_it() {
        let line = format!("java\0-cp\0{}\0Main\0", "a.jar:".repeat(1000));
        let shown = shown(line.as_bytes(), false);
        let shown: Vec<_> = shown.iter().collect();
        assert_eq!(shown.len(), 4);
        assert!(shown[2].ends_with('…') && shown[3] == "Main", "{shown:?}");
    }

    #[test]
    fn many_short_arguments_take_no_more_memory_than_their_json() {
        let many = shown(&b"x\0".repeat(250), false);
        assert_eq!(many.iter().count(), 250);
        assert!(many.0.len() < serde_json::to_string(&many).unwrap().len());
    }

    #[test]
    fn a_line_of_somebody_else_s_is_read_argument_by_argument() {
        for (line, arguments) in
            [("[]", vec![]), (r#"[""]"#, vec![""]), (r#"["a\u0000b",""]"#, vec!["a\u{fffd}b", ""])]
        {
            let read: Cmdline = serde_json::from_str(line).unwrap();
            assert_eq!(read.iter().collect::<Vec<_>>(), arguments, "{line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_process_says_of_itself_is_bounded(
            part in prop::collection::vec(any::<u8>(), 1..9),
            many in 1usize..4000,
            cut: bool,
        ) {
            let shown = shown(&part.repeat(many), cut);
            let written = serde_json::to_string(&shown).unwrap();
            prop_assert!(written.len() <= MOST_BYTES, "{}", written.len());
            prop_assert!(shown.iter().count() <= MOST_ARGUMENTS);
            let read: Cmdline = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(read, shown);
        }
    }
}
