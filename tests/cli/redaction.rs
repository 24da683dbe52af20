//! Invalid patterns for redaction: nothing is printed.

use std::fs;

use portwatch_tests::command::{portwatch, run};
use tempfile::TempDir;

#[test]
fn a_pattern_that_is_wrong_ends_it_before_anything_is_shown_or_started() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "redact = [\"(\"]").unwrap();
    let file = file.display().to_string();
    let started = folder.path().join("started").display().to_string();
    for (variable, value) in [
        ("PORTWATCH_REDACT", "("),
        ("PORTWATCH_REDACT", "a*"),
        ("PORTWATCH_CONFIG", file.as_str()),
        ("PORTWATCH_CONFIG", "/nonexistent/config.toml"),
    ] {
        for arguments in [&["explain", "8080"][..], &["exec", "--", "touch", &started]] {
            let said = run(portwatch(arguments).env(variable, value));
            assert_eq!(said.code, 2, "{variable}={value} {arguments:?}: {said}");
            assert_eq!(said.stdout, "", "{said}");
            assert!(said.stderr.contains("hint: "), "{said}");
        }
    }
    assert!(!fs::exists(&started).unwrap(), "the command was started");
}
