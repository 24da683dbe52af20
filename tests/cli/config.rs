//! The configuration, from the outside.

use std::fs;

use portwatch_tests::command::{Said, portwatch, run};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self, text: &str) -> String {
        let path = self.0.path().join("config.toml");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

fn show(arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = portwatch(&["config", "show"]);
    command.args(arguments).envs(variables.iter().copied());
    run(&mut command)
}

#[track_caller]
fn assert_line(said: &Said, value: &str, from: &str) {
    let is_it = |line: &str| {
        line.split_once(" # ").is_some_and(|(v, f)| v.trim_end() == value && f == from)
    };
    assert!(said.stdout.lines().any(is_it), "no `{value}` from {from}: {said}");
}

#[test]
fn each_layer_is_over_the_one_before() {
    let folder = Folder::new();
    let path = folder.file("storm-window = \"1s\"\nport = [80]\ncapture-size = \"2GiB\"");
    let variables = [("PORTWATCH_STORM_WINDOW", "2s"), ("PORTWATCH_PORT", "81,82")];
    let said = show(&["--config", &path, "--storm-window", "3s"], &variables);
    said.is_result();
    assert_line(&said, "storm-window = \"3s\"", "flag");
    assert_line(&said, "port = [81,82]", "environment");
    assert_line(&said, "capture-size = \"2GiB\"", "file");
    assert_line(&said, "enrichment-deadline = \"250ms\"", "default");
    assert!(said.stdout.contains(&path), "{said}");
    let said = show(&[], &[("PORTWATCH_CONFIG", &path)]);
    assert_line(&said, "port = [80]", "file");
}

/// The output is a file with the same settings.
#[test]
fn what_is_shown_can_be_read() {
    let folder = Folder::new();
    let shown = show(&["--format", "json", "--redact", "a\"b\\d", "--metrics", "9749"], &[]);
    let path = folder.file(&shown.stdout);
    let again = show(&["--config", &path], &[]);
    again.is_result();
    let values = |said: &Said| -> Vec<String> {
        let lines = said.stdout.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" # ").next().unwrap().trim_end().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&shown));
}

#[test]
fn check_says_where_and_what_was_meant() {
    let folder = Folder::new();
    run(&mut portwatch(&["config", "check", &folder.file("port = [80]")])).is_result();
    let path = folder.file("port = [80]\nformt = [\"json\"]");
    let said = run(&mut portwatch(&["config", "check", &path]));
    said.is_error(2);
    let line = format!("{path}:2: unknown key `formt`, did you mean `format`?");
    assert!(said.stderr.contains(&line), "{said}");
    let twice = folder.file("format = [\"json\", \"human\"]");
    run(&mut portwatch(&["config", "check", &twice])).is_error(2);
    run(&mut portwatch(&["config", "check", "/nowhere/config.toml"])).is_error(2);
}

#[test]
fn run_does_not_start_with_a_wrong_file() {
    let folder = Folder::new();
    let path = folder.file("storm-window = \"soon\"");
    let said = run(&mut portwatch(&["run", "--config", &path]));
    said.is_error(2);
    assert!(said.stderr.contains("config.toml:1: `soon` is not a time"), "{said}");
}

/// In the file they are allowed without a capture, on the command line they are an error.
#[test]
fn limits_need_a_capture() {
    let folder = Folder::new();
    let path = folder.file("capture-size = \"1GiB\"");
    show(&["--config", &path], &[]).is_result();
    show(&["--capture-size", "1GiB"], &[]).is_error(2);
}

/// Other files than regular ones are neither opened nor read to an end that may never come.
#[test]
fn only_a_regular_file_is_read() {
    let folder = Folder::new();
    let fifo = folder.0.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let large = folder.0.path().join("large.toml");
    fs::File::create(&large).unwrap().set_len(10 << 30).unwrap();
    let [fifo, large] = [fifo, large].map(|path| path.display().to_string());
    let inside = folder.0.path().display().to_string();
    for path in [&fifo, &inside, "/dev/zero", "/dev/null", "/dev/tty", &large] {
        for verb in [&["config", "check", path][..], &["config", "show", "--config", path]] {
            let said = run(&mut portwatch(verb));
            said.is_error(2);
            assert!(said.stderr.contains("regular file"), "{said}");
        }
    }
    let link = folder.0.path().join("link.toml");
    std::os::unix::fs::symlink(folder.file("port = [80]"), &link).unwrap();
    run(&mut portwatch(&["config", "check", link.to_str().unwrap()])).is_result();
    run(&mut portwatch(&["explain", "9", "--netns", &fifo])).is_error(2);
}

const CAPTURE: &str = "[[sink]]\ntype = \"capture\"\nfolder = ";

fn check(folder: &Folder, text: &str) -> Said {
    run(&mut portwatch(&["config", "check", &folder.file(text)]))
}

fn has_table(said: &Said, kind: &str) -> bool {
    let head = format!("[[sink]]{:32} # file\n", "");
    let is_it = |table: &str| table.lines().any(|line| line == format!("type = \"{kind}\""));
    said.stdout.split(&head).skip(1).any(is_it)
}

#[test]
fn sinks_have_tables() {
    let folder = Folder::new();
    let tables = "[[sink]]\ntype = \"json\"\n[[sink]]\ntype = \"journald\"\n";
    let captures =
        format!("{CAPTURE}\"/a\"\nfile-size = \"1MiB\"\n{CAPTURE}\"/b\"\nfile-age = \"1h\"");
    check(&folder, &format!("{tables}{captures}\nsize = \"1GiB\"")).is_result();
    // Other sinks in addition to the keys.
    check(&folder, &format!("format = [\"json\"]\ncapture = \"/c\"\n{captures}")).is_result();
}

#[test]
fn a_wrong_table_is_named_by_its_line() {
    let folder = Folder::new();
    for (text, line, why) in [
        ("port = [80]\n[[sink]]\ntype = \"jsn\"", 3, "unknown value `jsn`, did you mean `json`?"),
        ("[[sink]]\ntype = \"capture\"\nfoldr = \"/a\"", 3, "did you mean `folder`?"),
        ("[[sinks]]\ntype = \"json\"", 1, "unknown key `sinks`, did you mean `sink`?"),
        ("[[sink]]\ntype = \"capture\"\nfolder = \"/a\"\nsize = \"much\"", 4, ""),
        ("port = [80]\n[[sink]]\ntype = \"capture\"", 2, "needs the key `folder`"),
        ("\n[[sink]]\ntype = \"json\"\nfolder = \"/a\"", 2, "has no key `folder`"),
        ("[[sink]]\nfolder = \"/a\"", 1, "missing field `type`"),
        ("format = [\"capture\"]", 1, "unknown value `capture`"),
    ] {
        let said = check(&folder, text);
        said.is_error(2);
        assert!(said.stderr.contains(&format!("config.toml:{line}: ")), "{text}: {said}");
        assert!(said.stderr.contains(why), "{text}: {said}");
    }
}

/// By keys and tables of one file together.
#[test]
fn each_sink_is_named_once_and_one_has_stdout() {
    let folder = Folder::new();
    let json = "[[sink]]\ntype = \"json\"\n";
    let one = format!("{CAPTURE}\"/a\"\n");
    for (text, why) in [
        (format!("{json}{json}"), "json is named twice"),
        (format!("format = [\"json\"]\n{json}"), "json is named twice"),
        (format!("format = [\"human\"]\n{json}"), "human and json both write to stdout"),
        (format!("{json}[[sink]]\ntype = \"markdown\""), "json and markdown both write to stdout"),
        (format!("{one}{CAPTURE}\"/a/\""), "two captures"),
        (format!("capture = \"/a\"\n{one}"), "two captures"),
    ] {
        let said = check(&folder, &text);
        said.is_error(2);
        assert!(said.stderr.contains(why), "{text}: {said}");
    }
}

/// A flag or a variable replaces all tables of its kind, and no others.
#[test]
fn flags_and_variables_replace_tables() {
    let folder = Folder::new();
    let text = format!("[[sink]]\ntype = \"json\"\n{CAPTURE}\"/a\"\n{CAPTURE}\"/b\"");
    let path = folder.file(&text);
    let said = show(&["--config", &path], &[]);
    assert!(has_table(&said, "json") && has_table(&said, "capture"), "{said}");
    assert_line(&said, "format = []", "default");
    let said = show(&["--config", &path, "--format", "human"], &[]);
    assert!(!has_table(&said, "json") && has_table(&said, "capture"), "{said}");
    assert_line(&said, "format = [\"human\"]", "flag");
    let said = show(&["--config", &path], &[("PORTWATCH_CAPTURE", "/c")]);
    assert!(has_table(&said, "json") && !has_table(&said, "capture"), "{said}");
    assert_line(&said, "capture = \"/c\"", "environment");
    // The limits apply to the capture that is given with them.
    show(&["--config", &path, "--capture-size", "1GiB"], &[]).is_error(2);
}

#[test]
fn tables_that_are_shown_can_be_read() {
    let folder = Folder::new();
    let text = format!("{CAPTURE}\"/a \\\"b\\\"\"\nfile-age = \"1h\"\n[[sink]]\ntype = \"json\"");
    let shown = show(&["--config", &folder.file(&text), "--port", "80"], &[]);
    shown.is_result();
    let values = |said: &Said| -> Vec<String> {
        let lines = said.stdout.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" # ").next().unwrap().trim_end().to_owned()).collect()
    };
    let again = show(&["--config", &folder.file(&shown.stdout)], &[]);
    again.is_result();
    assert_eq!(values(&again), values(&shown));
    assert!(values(&again).contains(&"file-age = \"1h\"".to_owned()), "{again}");
}
