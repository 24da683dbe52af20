//! `portwatch doctor` on this machine.

use portwatch_tests::command::{portwatch, run};
use serde_json::Value;

#[test]
fn it_names_the_hooks() {
    let said = run(&mut portwatch(&["doctor"]));
    said.is_result();
    assert!(said.stdout.contains("fexit") || said.stdout.contains("tracepoint"), "{said}");
    assert!(!said.stdout.contains('\u{1b}'), "there is colour, and no terminal: {said}");
}

#[test]
fn it_speaks_json() {
    let said = run(&mut portwatch(&["doctor", "--json"]));
    said.is_result();
    let value: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert!(value.is_object(), "{said}");
}
