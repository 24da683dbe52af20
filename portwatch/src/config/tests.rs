use std::fs;

use serde_json::{Map, Value};
use strum::VariantArray as _;

use super::*;
use crate::sinks::{Entry, check};

const SAMPLE: &str = "../packaging/config.toml";
const TABLE: &str = "../docs/config.md";

/// The texts of a definition.
pub(super) struct Document {
    pub key: String,
    pub values: String,
    pub default: Option<&'static str>,
    pub reload: String,
    pub sample: String,
    pub example: Option<&'static str>,
}

impl Document {
    /// Returns its lines in the sample: a comment, unless the previous comment covers it, and
    /// the key with its default or, behind a #, an example.
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
            Some(example) => {
                let is_bare = example.parse::<i64>().is_ok() || example.starts_with('[');
                let quote = if is_bare { "" } else { "\"" };
                format!("{comment}#{key} = {quote}{example}{quote}\n")
            }
            None => format!("{comment}{key} = {default}\n"),
        }
    }

    /// Its row in the document.
    fn row(&self, default: &Value) -> String {
        let Self { key, values, reload, .. } = self;
        let default = match (self.default, default) {
            (Some(text), _) => text.to_owned(),
            (None, Value::String(text)) => text.clone(),
            (None, Value::Number(number)) => number.to_string(),
            (None, _) => "none".to_owned(),
        };
        format!("| `{key}` | {values} | {default} | {reload} |\n")
    }
}

/// Returns a sentence with the values of `format`, each in `quote`s; those on stdout first.
pub(super) fn formats(quote: &str, before: &str, on_stdout: &str) -> String {
    let names = |stdout| {
        let kinds = Kind::VARIANTS.iter().filter(|kind| kind.entry().is_format);
        let names = kinds.filter(|kind| kind.entry().is_on_stdout == stdout);
        names.map(|kind| format!("{quote}{kind}{quote}")).collect::<Vec<_>>().join(", ")
    };
    let end = if before.is_empty() { "" } else { "." };
    format!("{before}{}{on_stdout}, {}{end}", names(true), names(false))
}

/// Tables in the sample, behind its keys.
const TABLES: &str = "
# A sink may have a table instead, with keys of its own; a capture has folder, file-size,
# file-age and size.
#[[sink]]
#type = \"capture\"
#folder = \"/srv/portwatch\"
";

/// Compares a text with what `anew` generates from it; `PORTWATCH_GOLDEN=1` writes that.
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

/// The first paragraph of the sample is not generated. A key without a default is commented
/// out in it, and valid if it is not.
#[test]
fn the_sample_is_the_definitions() {
    let sample = written(SAMPLE, |text| {
        let (head, _) = text.split_once("\n\n").unwrap();
        format!("{head}\n{}{TABLES}", all(Document::sample))
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

/// Returns a text with newly generated rows of the table under this head.
fn with_rows(text: &str, head: &str, rows: &str) -> String {
    let (before, table) = text.split_once(head).unwrap();
    let (_, after) = table.split_once("\n\n").unwrap();
    format!("{before}{head}{rows}\n{after}")
}

fn kind_row(kind: &Kind) -> String {
    let list =
        |keys: &[&str]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let Entry { needs, takes, is_on_stdout, .. } = kind.entry();
    let [needed, taken] = [needs, takes].map(list);
    let keys = match (&*needed, &*taken) {
        ("", "") => "none".to_owned(),
        (needed, "") => needed.to_owned(),
        (needed, taken) => format!("{needed}; optional {taken}"),
    };
    let stdout = if is_on_stdout { "yes" } else { "no" };
    format!("| `{kind}` | {keys} | {stdout} |\n")
}

#[test]
fn the_tables_are_the_definitions() {
    written(TABLE, |text| {
        let text = with_rows(text, "|---|---|---|---|\n", &all(Document::row));
        let kinds: String = Kind::VARIANTS.iter().map(kind_row).collect();
        with_rows(&text, "| type | keys | stdout |\n|---|---|---|\n", &kinds)
    });
}

/// The key is the flag's name, and the variable is the key; the help names the effective
/// default.
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
        ("xyz = 1", 1, "unknown key `xyz`; the known ones are "),
        ("format = [\n  \"jsn\",\n]", 2, "unknown value `jsn`, did you mean `json`?"),
        ("port = [80,\n0]", 2, "0"),
        ("port = [70000]", 1, "70000"),
        ("storm-window = \"soon\"", 1, "`soon` is not a time"),
        ("storm-window = 10", 1, "expected a string"),
        ("redact = [\"(\"]", 1, "`(` is not a regular expression"),
        ("metrics = \"nowhere\"", 1, "`nowhere` is not ADDRESS:PORT"),
        ("port = [80", 1, ""),
        ("port = [80]\nport = [81]", 2, "duplicate key"),
    ] {
        let file::ParseError { line: at, why } = file::parse(text).unwrap_err();
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

#[test]
fn a_table_has_the_keys_of_its_type() {
    let capture = "[[sink]]\ntype = \"capture\"\nfolder = \"/a\"\n";
    for (text, line, part) in [
        ("port = [80]\n[[sink]]\ntype = \"jsn\"", 3, "unknown value `jsn`, did you mean `json`?"),
        ("[[sink]]\ntype = \"capture\"\nfoldr = \"/a\"", 3, "did you mean `folder`?"),
        ("[[sinks]]\ntype = \"json\"", 1, "unknown key `sinks`, did you mean `sink`?"),
        (&*format!("{capture}size = \"much\""), 4, ""),
        ("port = [80]\n[[sink]]\ntype = \"capture\"", 2, "needs the key `folder`"),
        ("\n[[sink]]\ntype = \"json\"\nfolder = \"/a\"", 2, "has no key `folder`"),
        ("[[sink]]\nfolder = \"/a\"", 1, "missing field `type`"),
        ("format = [\"capture\"]", 1, "unknown value `capture`"),
    ] {
        let file::ParseError { line: at, why } = file::parse(text).unwrap_err();
        assert!(at == line && why.contains(part), "{text}: {at}: {why}");
    }
}

#[test]
fn tables_are_sinks_beside_the_keys() {
    let file = file::parse(
        "capture = \"/a\"\n[[sink]]\ntype = \"journald\"\n[[sink]]\ntype = \"capture\"\nfolder = \"/b\"",
    );
    let file = file.unwrap();
    let kinds = |layer: Layer| {
        let sinks = Settings::from(layer).sinks();
        check(&sinks).unwrap();
        sinks.iter().map(Table::kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(file.clone()), [Kind::Capture, Kind::Journald, Kind::Capture]);
    let over = |flags: Layer| kinds(flags.over(file.clone()));
    let format = Layer { format: Some(vec![Format::Json]), ..Layer::default() };
    assert_eq!(over(format), [Kind::Json, Kind::Capture, Kind::Capture]);
    let capture = Layer { capture: Some("/b".into()), ..Layer::default() };
    assert_eq!(over(capture), [Kind::Capture, Kind::Journald]);
}

#[test]
fn only_a_new_start_changes_sinks() {
    let settings = |text| Settings::from(file::parse(text).unwrap());
    let now = settings("[[sink]]\ntype = \"json\"");
    assert!(now.same_outputs(&settings("port = [80]\n[[sink]]\ntype = \"json\"")));
    assert!(!now.same_outputs(&settings("[[sink]]\ntype = \"markdown\"")));
}
