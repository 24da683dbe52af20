//! docs/cli.md: the help of every verb, as the program prints it.
//! `PORTWATCH_GOLDEN=1` writes it anew.

use std::fs;

use portwatch_tests::golden;

/// Columns of the document's lines.
const WIDTH: usize = 100;

const HEAD: &str = "\
# The command line

The help of every verb, as `portwatch help` and `portwatch help VERB` print it. The test `the_reference_is_the_help` \
(tests/docs/cli.rs)
generates this page from the definition in `portwatch/src/cli`. Shell completions (`portwatch completions`) and manual
pages (`portwatch man DIR`, for packages) come from the same definition.
";

#[test]
fn the_reference_is_the_help() {
    let mut command = portwatch::cli::command().term_width(WIDTH);
    command.build();
    let mut text = format!("{HEAD}\n{}", section("portwatch", &mut command.clone()));
    for verb in command.get_subcommands_mut() {
        if verb.is_hide_set() || verb.get_name() == "help" {
            continue;
        }
        let title = format!("portwatch {}", verb.get_name());
        text.push_str(&section(&title, &mut verb.clone().term_width(WIDTH)));
    }
    let path = super::root().join("docs/cli.md");
    if golden::is_asked_for() {
        fs::write(&path, &text).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(recorded, text, "PORTWATCH_GOLDEN=1 on this test writes docs/cli.md anew");
}

fn section(title: &str, command: &mut clap::Command) -> String {
    let help = command.render_long_help().to_string();
    let lines = help.trim_end().lines().map(|line| format!("    {line}"));
    let lines: Vec<_> = lines.map(|line| line.trim_end().to_owned()).collect();
    format!("## {title}\n\n{}\n\n", lines.join("\n"))
}
