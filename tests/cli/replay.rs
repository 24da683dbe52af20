//! `portwatch replay` of files.

use std::{fs, io::Write as _, process::Stdio};

use portwatch_tests::{
    command::{Said, portwatch, run},
    event::Event,
};
use tempfile::TempDir;

const EVENT: &str = include_str!("../golden/listener.jsonl");

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn with(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }
}

fn json(arguments: &[&str]) -> Said {
    run(&mut portwatch(&[&["replay", "--format", "json"], arguments].concat()))
}

/// The current diagnosis of the golden event.
fn today() -> String {
    let files = Files::new();
    let said = json(&[&files.with("a", EVENT)]);
    said.is_result();
    said.stdout
}

#[test]
fn from_files_folders_stdin_and_compressed() {
    let files = Files::new();
    let twice = EVENT.repeat(2);
    let compressed = zstd::encode_all(twice.as_bytes(), 3).unwrap();
    files.with("20260601T000000.000000Z.jsonl.zst", compressed);
    files.with("20260602T000000.000000Z.jsonl", EVENT);
    files.with("notes.txt", "not of the capture");
    let folder = files.0.path().to_str().unwrap();
    let said = json(&[folder, folder]);
    said.is_result();
    assert_eq!(said.stdout, today().repeat(6));

    for bytes in [twice.as_bytes(), &zstd::encode_all(twice.as_bytes(), 3).unwrap()] {
        let mut command = portwatch(&["replay", "-", "--format", "json"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), today().repeat(2));
    }
}

/// Any user may read a directory, root too, and others may have written to it: only its
/// regular files are opened.
#[test]
fn what_is_no_file_in_a_folder_is_not_waited_at() {
    let files = Files::new();
    files.with("20260602T000000.000000Z.jsonl", EVENT);
    let at = |name: &str| files.0.path().join(name);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = at("20260601T000000.000000Z.jsonl");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    std::os::unix::fs::symlink("/proc/kmsg", at("20260603T000000.000000Z.jsonl")).unwrap();
    let folder = files.0.path().to_str().unwrap();
    let said = json(&[folder]);
    said.is_result();
    assert_eq!(said.stdout, today());
    let counted = run(&mut portwatch(&["history", folder]));
    assert_eq!(counted.code, 0, "{counted}");
}

/// Everything but the diagnosis stays as it is, in any order and with additional fields.
#[test]
fn a_line_of_another_form_is_the_same_event() {
    let value: serde_json::Value = serde_json::from_str(EVENT).unwrap();
    let files = Files::new();
    let said = json(&[&files.with("a", format!("{value}\n"))]);
    said.is_result();
    let again = Event::new(serde_json::from_str(&said.stdout).unwrap(), 0);
    // Fields that are newer than the recorded event are there as well.
    again.includes(&serde_json::from_str(&today()).unwrap());
}

#[test]
fn a_torn_last_line_is_skipped_with_a_message() {
    let files = Files::new();
    let path = files.with("a.jsonl", [EVENT, &EVENT[..900]].concat());
    let said = json(&[&path]);
    said.is_result();
    assert_eq!(said.stdout, today());
    assert!(said.stderr.contains(&format!("{path}:2: the last line is incomplete")), "{said}");
}

#[test]
fn what_is_wrong_is_said_by_line_and_the_rest_is_read() {
    let files = Files::new();
    let newer = EVENT.replace("bind-failure/v1", "bind-failure/v7");
    let path = files.with("a.jsonl", [EVENT, "nonsense\n", &newer, "\n", EVENT].concat());
    let said = json(&[&path]);
    assert_eq!((said.code, said.stdout.as_str()), (1, today().repeat(2).as_str()), "{said}");
    assert!(said.stderr.contains(&format!("{path}:2: not JSON")), "{said}");
    let newer = format!("{path}:3: written by a newer portwatch: portwatch/bind-failure/v7");
    assert!(said.stderr.contains(&newer), "{said}");
    assert!(said.stderr.contains("error: 2 lines could not be read"), "{said}");
    assert!(said.stderr.contains("hint:"), "{said}");
}

#[test]
fn what_cannot_be_read_at_all() {
    let files = Files::new();
    let empty = files.0.path().to_str().unwrap().to_owned();
    let compressed = zstd::encode_all(EVENT.repeat(50).as_bytes(), 3).unwrap();
    let cut = files.with("cut.zst", &compressed[..compressed.len() / 2]);
    for arguments in [vec!["/nowhere/at/all"], vec![empty.as_str()]] {
        json(&arguments).is_error(1);
    }
    let said = json(&[&cut]);
    assert_eq!(said.code, 1, "{said}");
    assert!(said.stderr.contains(&cut), "{said}");
    run(&mut portwatch(&["replay", "--diff", "--format", "markdown", &cut])).is_error(2);
}

#[test]
fn only_what_is_asked_for() {
    let files = Files::new();
    let path = files.with("a.jsonl", EVENT);
    for (arguments, found) in [
        (&["--port", "8080"][..], 1),
        (&["--port", "81", "--port", "8080"], 1),
        (&["--port", "81"], 0),
        (&["--unit", "app"], 1),
        (&["--unit", "app.service"], 1),
        (&["--unit", "session-91.scope"], 1),
        (&["--unit", "ap"], 0),
        (&["--cause", "listener"], 1),
        (&["--cause", "time_wait"], 0),
        (&["--since", "2026-06-08T10:00:00Z", "--until", "2026-06-08T11:00:00Z"], 1),
        (&["--since", "2026-06-09"], 0),
        (&["--until", "2026-06-08T10:00:00Z"], 0),
    ] {
        let said = json(&[arguments, &[path.as_str()]].concat());
        assert_eq!((said.code, said.stdout.lines().count()), (0, found), "{said}");
    }
    json(&["--since", "yesterday-ish", &path]).is_error(2);
}

#[test]
fn every_format() {
    let files = Files::new();
    let path = files.with("a.jsonl", EVENT);
    for (format, part) in [("human", "do          kill 31550"), ("markdown", "### Who holds it")] {
        let said = run(&mut portwatch(&["replay", "--format", format, &path]));
        said.is_result();
        assert!(said.stdout.contains(part), "{said}");
    }
}

#[test]
fn the_difference_to_what_was_recorded() {
    let files = Files::new();
    let today = today();
    let path = files
        .with("a", [today.clone(), today.replace("\"cause\":\"", "\"cause\":\"dual_")].concat());
    let path = files.with("b", fs::read_to_string(path).unwrap().replace("dual_listener", "gone"));
    let said = run(&mut portwatch(&["replay", "--diff", &path]));
    said.is_result();
    assert!(said.stdout.contains("- cause: \"gone\"\n  + cause: \"listener\""), "{said}");
    assert!(said.stderr.contains("1 of 2 diagnoses changed"), "{said}");
    let said = run(&mut portwatch(&["replay", "--diff", "--format", "json", &path]));
    let change: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(change["changes"]["cause"]["was"], "gone", "{said}");
}

/// `portwatch replay … | head` is no failure.
#[test]
fn a_reader_that_has_seen_enough() {
    let files = Files::new();
    let path = files.with("a", EVENT.repeat(1000));
    for format in ["json", "human"] {
        let mut command = portwatch(&["replay", "--format", format, &path]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}
