//! Command lines as they are seen, and what they run.

use proptest::prelude::*;

use super::*;
use crate::redact::Cmdline;

/// Returns what a command line runs, whose arguments stand between bars; empty if it does not
/// say so.
fn shown(line: &str) -> String {
    let mut arguments = line.split('|');
    let file = arguments.next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let spec = of(file).unwrap_or_else(|| panic!("{file} is no interpreter"));
    let parts = spec.program(arguments).unwrap_or_default();
    let shown = parts.iter().map(|Part { kind, text }| match kind {
        Kind::Path => format!("path {text}"),
        Kind::Name => format!("name {text}"),
        Kind::Text => format!("text {text}"),
    });
    shown.collect::<Vec<_>>().join(" + ")
}

/// Compares what command lines run with what is expected.
pub fn check(lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(shown(line), *expected, "{line}");
    }
}

#[test]
fn a_file_is_known_by_its_name_and_no_other_is() {
    for name in ["python3.12", "node-18", "lua5.4", "perl5.36.0", "php8.2", "beam.smp", "R", "sh"] {
        assert!(of(name).is_some(), "{name}");
    }
    for name in [
        "nginx", "php-fpm8.2", "nodetool", "javac", "pythond", "python3-config", "ruby.rb",
        "shred", "node_exporter", "Rserve", "luarocks", "perldoc", "uwsgi", "monologue", "",
        "3.12",
    ] {
        assert!(of(name).is_none(), "{name}");
    }
}

#[test]
fn every_name_is_of_one_interpreter() {
    for spec in ALL {
        for name in spec.names {
            assert_eq!(of(name).unwrap().names, spec.names, "{name}");
        }
    }
}

#[test]
fn what_is_cut_is_unknown() {
    check(&[
        ("python3|/srv/shop/app…", ""),
        ("java|-cp|a.jar:b…|com.shop.Main", "name com.shop.Main"),
        ("python3|/usr/bin/gunicorn|…", ""),
        ("sh|-c|exec ./ser…", ""),
        ("node|--require", ""),
    ]);
}

proptest! {
    #[test]
    fn any_arguments_are_read(
        name in prop::sample::select(ALL.iter().flat_map(|spec| spec.names).collect::<Vec<_>>()),
        arguments in prop::collection::vec(
            prop_oneof![
                any::<String>(),
                "[-+@]{0,2}[a-zA-Z]{1,3}",
                prop::sample::select(vec![
                    "-c", "-m", "--", "-", "-jar", "gunicorn", "npm", "run", "bundle", "exec", "-é",
                    "org.jruby.Main", "puma", "@x", "-o", "+",
                ])
                .prop_map(str::to_owned),
            ],
            0..9,
        ),
    ) {
        let cmdline = Cmdline::from(arguments);
        let parts = of(name).unwrap().program(&cmdline);
        prop_assert!(parts.is_none_or(|parts| !parts.is_empty()));
    }
}
