use std::fs;

use serde_json::{Map, Value};

use super::*;

const SAMPLE: &str = "../packaging/config.toml";
const TABLE: &str = "../docs/config.md";

/// What a definition says for people.
pub(super) struct Document {
    pub key: String,
    pub values: String,
    pub default: Option<&'static str>,
    pub reload: String,
    pub sample: String,
    pub example: Option<&'static str>,
}

impl Document {
    /// Its lines in the sample: a comment, unless the one before is about it too, and the
    /// key with its default or, behind a #, an example.
    fn sample(&self, default: &Value) -> String {
        let Self { key, sample, example, .. } = self;
        let comment = textwrap::wrap(
            sample,
            textwrap::Options::new(88).initial_indent("# ").subsequent_indent("# "),
        );
        let comment = match sample.is_empty() {
            true => String::new(),
            false => format!("\n{}\n", comment.join("\n")),
        };
        match example {
            Some(example) => format!("{comment}#{key} = \"{example}\"\n"),
            None => format!("{comment}{key} = {default}\n"),
        }
    }

    /// Its row in the document.
    fn row(&self, default: &Value) -> String {
        let Self { key, values, reload, .. } = self;
        let default = match (self.default, default) {
            (Some(text), _) => text,
            (None, Value::String(text)) => text,
            (None, _) => "none",
        };
        format!("| `{key}` | {values} | {default} | {reload} |\n")
    }
}

/// The text of a file, with what `anew` makes of it; `PORTWATCH_GOLDEN=1` writes that.
fn written(path: &str, anew: impl Fn(&str) -> String) -> String {
    let text = fs::read_to_string(path).unwrap();
    let wanted = anew(&text);
    if std::env::var_os("PORTWATCH_GOLDEN").is_some() {
        fs::write(path, &wanted).unwrap();
    } else {
        assert_eq!(text, wanted, "PORTWATCH_GOLDEN=1 on this test writes {path} anew");
    }
    wanted
}

fn values(value: &impl Serialize) -> Map<String, Value> {
    let Value::Object(fields) = serde_json::to_value(value).unwrap() else { panic!() };
    fields
}

fn all(form: impl Fn(&Document, &Value) -> String) -> String {
    let defaults = values(&Settings::from(Layer::default()));
    documents().iter().map(|one| form(one, &defaults[&one.key])).collect()
}

/// The first paragraph of the sample is its own. What has no default stands in it as a
/// comment, and is right when it is none.
#[test]
fn the_sample_is_the_definitions() {
    let sample = written(SAMPLE, |text| {
        let (head, _) = text.split_once("\n\n").unwrap();
        format!("{head}\n{}", all(Document::sample))
    });
    let said = Settings::from(file::parse(&sample).unwrap());
    assert_eq!(said, Settings::from(Layer::default()));
    let every_key: String = sample
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let said = file::parse(&every_key).unwrap_or_else(|wrong| panic!("{wrong:?}\n{every_key}"));
    let said = values(&said);
    let missing: Vec<_> = said.iter().filter(|(_, value)| value.is_null()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_table_is_the_definitions() {
    const BEGINS: &str = "|---|---|---|---|\n";
    written(TABLE, |text| {
        let (before, table) = text.split_once(BEGINS).unwrap();
        let (_, after) = table.split_once("\n\n").unwrap();
        format!("{before}{BEGINS}{}\n{after}", all(Document::row))
    });
}

/// A key is the flag, and the variable is the key; the help says the default that holds.
#[test]
fn names_and_defaults_in_the_help_are_the_keys_own() {
    let defaults = values(&Settings::from(Layer::default()));
    let command = <Layer as clap::Args>::augment_args(clap::Command::new("portwatch"));
    for one in documents() {
        let flag = command.get_arguments().find(|flag| flag.get_long() == Some(&one.key));
        let flag = flag.unwrap_or_else(|| panic!("no flag --{}", one.key));
        let variable = one.key.to_uppercase().replace('-', "_");
        assert_eq!(flag.get_env().unwrap(), &*format!("PORTWATCH_{variable}"));
        let help = flag.get_help().unwrap().to_string();
        if let Some(Value::String(default)) = defaults.get(&one.key) {
            assert!(help.ends_with(&format!("[default: {default}]")), "{help}");
        }
    }
}

#[test]
fn what_is_above_holds() {
    let file = file::parse("storm-window = \"1s\"\nport = [80]\nunit = []").unwrap();
    let flags = Layer { storm_window: Some("2s".parse().unwrap()), ..Layer::default() };
    let settings = Settings::from(flags.over(file));
    assert_eq!(settings.storm_window, Time(Duration::from_secs(2)));
    assert_eq!(settings.port, [NonZeroU16::new(80).unwrap()]);
    assert_eq!(settings.capture_size, Size(1 << 30));
}

#[test]
fn a_capture_alone_needs_no_text() {
    let formats = |text| Settings::from(file::parse(text).unwrap()).format;
    assert_eq!(formats(""), [Format::Human]);
    assert_eq!(formats("capture = \"/x\""), []);
    assert_eq!(formats("capture = \"/x\"\nformat = [\"json\"]"), [Format::Json]);
}

#[test]
fn errors_say_where_and_what_was_meant() {
    for (text, line, part) in [
        ("\n\nformt = [\"json\"]", 3, "unknown key `formt`, did you mean `format`?"),
        ("stormwindow = \"1s\"", 1, "did you mean `storm-window`?"),
        ("xyz = 1", 1, "unknown key `xyz`; there are "),
        ("format = [\n  \"jsn\",\n]", 2, "unknown value `jsn`, did you mean `json`?"),
        ("port = [80,\n0]", 2, "0"),
        ("port = [70000]", 1, "70000"),
        ("storm-window = \"soon\"", 1, "`soon` is no time"),
        ("storm-window = 10", 1, "expected a string"),
        ("redact = [\"(\"]", 1, "`(` is no regular expression"),
        ("metrics = \"nowhere\"", 1, "`nowhere` is neither"),
        ("port = [80", 1, ""),
        ("port = [80]\nport = [81]", 2, "duplicate key"),
    ] {
        let (at, why) = file::parse(text).unwrap_err();
        assert!(at == line && why.contains(part), "{text}: {at}: {why}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = file::parse(&text);
    }

    #[test]
    fn any_value_is_read_or_refused(key in "format|port|unit|redact|metrics|storm-window", value in ".{0,20}") {
        let _ = file::parse(&format!("{key} = {value}"));
        let _ = file::parse(&format!("{key} = [\"{value}\"]"));
    }
}
