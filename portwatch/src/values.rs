//! The values of settings. The file, the environment and the command line use the same text for
//! each value, and it is printed as that text.

use std::{
    fmt,
    net::{AddrParseError, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use jiff::SignedDuration;
use regex_lite::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest time of any setting: a year.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Why a text is not a valid value.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// Not a number of bytes.
    #[error("{why}")]
    Size {
        /// The parser's message.
        why: String,
    },
    /// Not a duration.
    #[error("`{text}` is not a time such as 10s, 250ms or 24h")]
    Time {
        /// The text.
        text: String,
        /// The error.
        source: jiff::Error,
    },
    /// A duration that is too long.
    #[error("the time is longer than a year")]
    TooLong,
    /// A duration that is negative.
    #[error("the time is negative")]
    Negative,
    /// A time limit that is too short or too long.
    #[error("`{text}` is not between 1ms and 5s")]
    Deadline {
        /// The text.
        text: String,
    },
    /// Neither a time nor a duration, or one that no calendar contains.
    #[error(transparent)]
    Calendar(#[from] jiff::Error),
    /// Neither a time nor a duration.
    #[error("expected a time, or a span such as 2h or 3 days")]
    Moment {
        /// Why it is not a duration.
        source: jiff::Error,
    },
    /// An empty name.
    #[error("the pattern is empty")]
    Empty,
    /// A glob that is too large.
    #[error(transparent)]
    Names(#[from] regex_lite::Error),
    /// Not UTF-8.
    #[error("the value is not UTF-8")]
    NotUtf8,
    /// The pattern would insert the mark between any two characters.
    #[error("`{text}` matches the empty string")]
    MatchesEmpty {
        /// The text.
        text: String,
    },
    /// Not a regular expression.
    #[error("`{text}` is not a regular expression: {source}")]
    Pattern {
        /// The text.
        text: String,
        /// The error.
        source: regex_lite::Error,
    },
    /// A path that depends on the current directory.
    #[error("`{path}` is not an absolute path")]
    Relative {
        /// The path.
        path: String,
    },
    /// Not an address to listen on.
    #[error("`{text}` is not ADDRESS:PORT, PORT or unix:PATH")]
    Listen {
        /// The text.
        text: String,
        /// Why it is not an address.
        source: AddrParseError,
    },
}

/// A number of bytes: `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A duration: `10s`, `250ms`, `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A time limit for an operation: it has a minimum and a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Duration);

/// A name with `*` for any characters and `?` for any one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    names: Pattern,
}

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let ByteSize(bytes) = text.parse().map_err(|why| ValueError::Size { why })?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    /// Prints the largest unit without a remainder, so that parsing returns the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] =
            [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = UNITS.iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit));
        match whole {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Time {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let span: SignedDuration =
            text.parse().map_err(|source| ValueError::Time { text: text.to_owned(), source })?;
        match Duration::try_from(span) {
            Ok(span) if span <= LONGEST => Ok(Self(span)),
            Ok(_) => Err(ValueError::TooLong),
            Err(_) => Err(ValueError::Negative),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(span) => write!(f, "{span:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

impl FromStr for Deadline {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let Time(span) = text.parse()?;
        match (Duration::from_millis(1)..=Duration::from_secs(5)).contains(&span) {
            true => Ok(Self(span)),
            false => Err(ValueError::Deadline { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Time(self.0).fmt(f)
    }
}

impl FromStr for Glob {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Empty);
        }
        let names = regex_lite::escape(text).replace(r"\*", ".*").replace(r"\?", ".");
        let names = Regex::new(&format!("(?s)^{names}$"))?;
        Ok(Self { text: text.to_owned(), names: Pattern(names) })
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Glob {
    /// Returns whether it contains a character.
    pub fn has(&self, wanted: char) -> bool {
        self.text.contains(wanted)
    }

    /// Returns whether it matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.names.0.is_match(name)
    }
}

impl FromStr for Pattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match Regex::new(text) {
            Ok(pattern) if pattern.is_match("") => {
                Err(ValueError::MatchesEmpty { text: text.to_owned() })
            }
            Ok(pattern) => Ok(Self(pattern)),
            Err(source) => Err(ValueError::Pattern { text: text.to_owned(), source }),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl FromStr for Listen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(ValueError::Relative { path: path.to_owned() }),
            };
        }
        if let Ok(port) = text.parse() {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|source| ValueError::Listen { text: text.to_owned(), source })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

macro_rules! as_text {
    ($($value:ty),*) => {$(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(Size, Time, Deadline, Glob, Pattern, Listen);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_written_as_they_are_read() {
        for text in ["64MiB", "1GiB", "1000B", "0B", "3TiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["10s", "250ms", "24h", "0s", "1m 30s"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        for text in ["127.0.0.1:9749", "[::1]:9749", "unix:/run/portwatch/metrics.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert_eq!("9749".parse::<Listen>().unwrap().to_string(), "127.0.0.1:9749");
        for (bad, why) in [("10", "time"), ("-1s", "negative"), ("2000000h", "year")] {
            assert!(bad.parse::<Time>().unwrap_err().to_string().contains(why), "{bad}");
        }
        assert!("0s".parse::<Deadline>().is_err() && "6s".parse::<Deadline>().is_err());
        assert!("unix:run".parse::<Listen>().is_err() && "localhost:1".parse::<Listen>().is_err());
        assert!("(".parse::<Pattern>().is_err() && "a*".parse::<Pattern>().is_err());
    }

    #[test]
    fn globs() {
        let matches = |glob: &str, name: &str| glob.parse::<Glob>().unwrap().matches(name);
        assert!(matches("nginx.service", "nginx.service"));
        assert!(matches("app@*.service", "app@1.service") && matches("*", ""));
        assert!(matches("a*b*c", "a-b-b-c") && matches("?x", "äx"));
        assert!(!matches("nginx", "nginx.service") && !matches("a*b", "a-b-c"));
        assert!(!matches("?", "") && !matches("app@*.service", "app.service"));
        assert!(matches("*b", "a\nb") && !matches("a", "a\n"));
        // No other characters are special: systemd uses backslashes in the names of units.
        assert!(matches(r"a\x2d*.[s]", r"a\x2db.[s]") && !matches("[a]", "a"));
        assert!(!matches(r"\*", "*") && matches(r"\*", r"\a\nb"));
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_with_any_part_left_out(name in "[a-z@.*]{1,20}", at in 0usize..20) {
            prop_assert!(name.parse::<Glob>().unwrap().matches(&name));
            let at = at.min(name.len());
            let beginning = format!("{}*", &name[..at]);
            prop_assert!(beginning.parse::<Glob>().unwrap().matches(&name));
        }
    }
}
