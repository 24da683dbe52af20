//! Without the capabilities: exit code 4, and how to get them.

use portwatch_tests::command::{as_nobody, run};

#[test]
fn run_needs_rights() {
    let said = run(as_nobody(None, &["run", "--format", "json"]).command());
    said.is_error(4);
    let hint = said.stderr.lines().find(|line| line.starts_with("hint:")).unwrap();
    assert!(hint.contains("root") || hint.contains("sudo") || hint.contains("CAP_"), "{said}");
}

/// The command is not started, because it would not be watched.
#[test]
fn exec_needs_rights_before_it_starts_anything() {
    let said = run(as_nobody(None, &["exec", "--", "sh", "-c", "echo started"]).command());
    said.is_error(4);
    assert!(said.stderr.contains("CAP_"), "{said}");
}

/// The doctor explains what is missing, so it must not fail because of it.
#[test]
fn doctor_tells_which_rights_are_missing() {
    let said = run(as_nobody(None, &["doctor"]).command());
    assert!([0, 4].contains(&said.code), "{said}");
    assert!(!said.stderr.contains("panicked"), "{said}");
    let told = format!("{}{}", said.stdout, said.stderr);
    assert!(told.contains("CAP_") || told.contains("root"), "{said}");
}
