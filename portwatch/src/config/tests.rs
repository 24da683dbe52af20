use super::*;

const SAMPLE: &str = include_str!("../../../packaging/config.toml");

fn keys(value: &impl Serialize) -> Vec<String> {
    let serde_json::Value::Object(fields) = serde_json::to_value(value).unwrap() else { panic!() };
    fields.into_iter().map(|(key, _)| key).collect()
}

#[test]
fn the_sample_says_the_defaults() {
    let sample = Settings::from(file::parse(SAMPLE).unwrap());
    assert_eq!(sample, Settings::from(Layer::default()));
}

/// What has no default stands there as a comment, and is right when it is none.
#[test]
fn the_sample_has_every_key() {
    let all: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let said = file::parse(&all).unwrap_or_else(|wrong| panic!("{wrong:?}\n{all}"));
    let serde_json::Value::Object(fields) = serde_json::to_value(&said).unwrap() else { panic!() };
    let missing: Vec<_> = fields.iter().filter(|(_, value)| value.is_null()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_layer_and_what_holds_have_the_same_keys() {
    assert_eq!(keys(&Layer::default()), keys(&Settings::from(Layer::default())));
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
