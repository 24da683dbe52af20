use strum::VariantArray as _;

use super::*;

fn capture(folder: &str) -> Table {
    Table::capture(folder.into(), Size(1), Time(Duration::ZERO), Size(1))
}

#[test]
fn each_once_and_one_on_stdout() {
    let [human, json, journald] = [Format::Human, Format::Json, Format::Journald].map(Table::from);
    let clash =
        |sinks: &[&Table]| check(&sinks.iter().map(|&sink| sink.clone()).collect::<Vec<_>>()).err();
    let (a, b) = (capture("/a"), capture("/b"));
    assert_eq!(clash(&[&human, &journald, &a, &b]), None);
    assert_eq!(clash(&[&journald, &a, &journald]), Some(Clash::Twice(Kind::Journald)));
    assert_eq!(clash(&[&json, &json]), Some(Clash::Twice(Kind::Json)));
    let mixed = Clash::TwiceOnStdout(Kind::Human, Kind::Json);
    assert_eq!(clash(&[&human, &a, &json]), Some(mixed));
    assert_eq!(clash(&[&a, &b, &capture("/a/")]), Some(Clash::OneFolder("/a".into())));
}

/// The keys of the entries are fields, and every field is a key of an entry.
#[test]
fn entries_name_the_keys_that_there_are() {
    let keys = serde_json::to_value(capture("/a")).unwrap();
    let mut known: Vec<_> = keys.as_object().unwrap().keys().map(String::as_str).collect();
    known.sort_unstable();
    let named = Kind::VARIANTS.iter().flat_map(|kind| [kind.entry().needs, kind.entry().takes]);
    let mut named: Vec<_> = named.flatten().copied().chain(["type"]).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, known);
}

#[test]
fn a_place_is_the_name() {
    for kind in Kind::VARIANTS {
        assert_eq!(kind.entry().place.0, format!("sink.{kind}"));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
    }
}
