//! `portwatch history` of files.

use std::fs;

use portwatch_tests::command::{portwatch, run};
use serde_json::Value;
use tempfile::TempDir;

const EVENT: &str = include_str!("../golden/listener.jsonl");

/// The same squatter blocks three releases.
fn three_deploys(folder: &TempDir) -> String {
    let path = folder.path().join("capture.jsonl");
    let releases = ["app-2.4.2", "app-2.4.3", "app-2.5.0"];
    let lines: String = releases.map(|release| EVENT.replace("app-2.4.2", release)).concat();
    fs::write(&path, lines).unwrap();
    path.display().to_string()
}

#[test]
fn the_squatter_that_comes_back() {
    let folder = TempDir::new().unwrap();
    let path = three_deploys(&folder);
    for (format, part) in [
        ("human", "port 8080: the same squatter, 3 deploys in a row (3 failed binds)"),
        ("markdown", "- port 8080: the same squatter, 3 deploys in a row (3 failed binds)"),
    ] {
        let said = run(&mut portwatch(&["history", "--format", format, &path]));
        said.is_result();
        assert!(said.stdout.contains(part), "{said}");
    }
    let said = run(&mut portwatch(&["history", "--format", "json", &path]));
    said.is_result();
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let pattern = &report["patterns"][0];
    assert_eq!(pattern["port"], 8080, "{said}");
    assert_eq!((&pattern["count"], &pattern["deploys"]), (&3.into(), &3.into()), "{said}");
    assert_eq!(pattern["class"], "squatter", "{said}");
}

#[test]
fn bad_lines_are_told_and_the_rest_is_counted() {
    let folder = TempDir::new().unwrap();
    let path = three_deploys(&folder);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}nonsense\n{EVENT}")).unwrap();
    let said = run(&mut portwatch(&["history", "--format", "json", &path]));
    assert_eq!(said.code, 1, "{said}");
    assert!(said.stdout.contains("\"count\":4"), "{said}");
    assert!(said.stderr.contains(&format!("{path}:4: not JSON")), "{said}");
}
