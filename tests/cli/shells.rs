//! What is generated from the command line's definition: completions and manual pages.

use std::{collections::BTreeSet, fs, io::Write as _, process::Stdio};

use portwatch_tests::command::{portwatch, run};
use tempfile::TempDir;

/// Each installed shell must be able to read its own.
#[test]
fn completions() {
    for (shell, program) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let said = run(&mut portwatch(&["completions", shell]));
        said.is_result();
        for word in ["run", "exec", "wait-free", "storm-window", "doctor"] {
            assert!(said.stdout.contains(word), "no {word} for {shell}");
        }
        let mut command = std::process::Command::new(program);
        let Ok(mut read) = command.arg("-n").stdin(Stdio::piped()).spawn() else { continue };
        read.stdin.take().unwrap().write_all(said.stdout.as_bytes()).unwrap();
        assert!(read.wait().unwrap().success(), "{shell} cannot read it");
    }
}

/// A page for each verb that `portwatch help` lists.
#[test]
fn manual() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("man1");
    let said = run(&mut portwatch(&["man", path.to_str().unwrap()]));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said}");
    let names = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    let pages: BTreeSet<_> = fs::read_dir(&path).unwrap().map(names).collect();
    let help = run(&mut portwatch(&["help"]));
    let commands = help.stdout.split("Commands:\n").nth(1).unwrap();
    let verbs = commands.lines().take_while(|line| !line.is_empty());
    let verbs = verbs.filter_map(|line| line.split_whitespace().next());
    let mut expected: BTreeSet<_> =
        verbs.filter(|verb| *verb != "help").map(|verb| format!("portwatch-{verb}.1")).collect();
    let others = ["portwatch.1", "portwatch-config-check.1", "portwatch-config-show.1"];
    expected.extend(others.map(str::to_owned));
    assert_eq!(pages, expected);
    let page = fs::read_to_string(path.join("portwatch-exec.1")).unwrap();
    for part in [".TH portwatch", "wait\\-free", "Examples"] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
}

#[test]
fn a_folder_that_cannot_be_written() {
    run(&mut portwatch(&["man", "/proc/none"])).is_error(1);
}
