//! Every verb without a reader: a pipe whose reader has closed it, a closed descriptor, a full
//! disk.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::Command,
};

use portwatch_tests::command::{Said, portwatch, run};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    stdio::{dup2_stderr, dup2_stdout},
};
use tempfile::TempDir;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The reader of the pipe has closed it.
    Pipe,
    /// `>&-`
    Descriptor,
    /// /dev/full
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Stdout,
    Stderr,
}

fn spoil(command: &mut Command, stream: Stream, fault: Fault) {
    let instead: Option<OwnedFd> = match fault {
        Fault::Pipe => Some(pipe_with(PipeFlags::CLOEXEC).unwrap().1),
        Fault::Descriptor => None,
        Fault::Full => Some(File::options().write(true).open("/dev/full").unwrap().into()),
    };
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    // SAFETY: one system call, which is safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            match (&instead, stream) {
                (Some(file), Stream::Stdout) => dup2_stdout(file)?,
                (Some(file), Stream::Stderr) => dup2_stderr(file)?,
                (None, _) if libc::close(number) != 0 => return Err(io::Error::last_os_error()),
                (None, _) => {}
            }
            Ok(())
        });
    }
}

/// A run of each verb that ends by itself. tests/live/closed.rs tests those that attach for
/// longer.
fn verbs(folder: &TempDir) -> Vec<Vec<String>> {
    let man = folder.path().join("man1").display().to_string();
    let config = folder.path().join("config.toml").display().to_string();
    std::fs::write(&config, "port = [80]").unwrap();
    let wrong = folder.path().join("wrong.toml").display().to_string();
    std::fs::write(&wrong, "prt = [80]").unwrap();
    let events = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/listener.jsonl");
    let bad = folder.path().join("bad.jsonl").display().to_string();
    std::fs::write(&bad, "{}\nno record\n").unwrap();
    // More than a pipe and all buffers hold.
    let many = folder.path().join("many.jsonl").display().to_string();
    std::fs::write(&many, std::fs::read_to_string(events).unwrap().repeat(300)).unwrap();
    [
        "--help",
        "--version",
        "help run",
        "",
        "frobnicate",
        "run --format xml",
        "explain 0",
        "explain 9",
        "explain 9 --format json",
        "explain 9 --format markdown",
        "explain 9 --netns all",
        "wait 9 --free --timeout 0",
        "wait 9 --free --timeout 0 --format json",
        "wait 9 --listening --timeout 0",
        "wait 9 --listening --timeout 100ms",
        "schema",
        "schema explanation",
        "doctor",
        "doctor --json",
        "config show",
        &format!("config check {config}"),
        &format!("config check {wrong}"),
        "completions bash",
        "completions zsh",
        "completions fish",
        &format!("man {man}"),
        &format!("replay {events}"),
        &format!("replay {many} --format json"),
        &format!("replay {many} --format human"),
        &format!("replay {many} --format markdown"),
        &format!("replay {many} --diff"),
        &format!("replay {bad}"),
        &format!("history {events}"),
        &format!("history {events} --format json"),
        &format!("history {events} --format markdown"),
        &format!("history {bad}"),
    ]
    .map(|line| line.split_whitespace().map(str::to_owned).collect())
    .into()
}

fn said(verb: &[String], faults: &[(Stream, Fault)]) -> Said {
    let arguments: Vec<_> = verb.iter().map(String::as_str).collect();
    let mut command = portwatch(&arguments);
    // The agent's log messages must not matter either.
    command.env("PORTWATCH_LOG", "debug");
    faults.iter().for_each(|&(stream, fault)| spoil(&mut command, stream, fault));
    let said = run(&mut command);
    assert!(!said.stderr.contains("panicked"), "{faults:?}: {said}");
    assert!(!(101..=139).contains(&said.code) && said.code >= 0, "{faults:?}: {said}");
    said
}

/// The exit code is the same as with readers that stay.
#[test]
fn nobody_reads() {
    let folder = TempDir::new().unwrap();
    for verb in verbs(&folder) {
        let expected = said(&verb, &[]);
        for fault in [Fault::Pipe, Fault::Descriptor] {
            let silent = said(&verb, &[(Stream::Stderr, fault)]);
            assert_eq!(silent.code, expected.code, "stderr {fault:?}: {silent}");
            for faults in [
                &[(Stream::Stdout, fault)][..],
                &[(Stream::Stdout, fault), (Stream::Stderr, fault)],
            ] {
                let closed = said(&verb, faults);
                // A verb that stops reading early cannot know the rest.
                let partly = verb.iter().any(|word| word.contains("bad.jsonl"));
                assert!(closed.code == expected.code || partly && closed.code == 0, "{closed}");
                assert!(!closed.stderr.contains("Broken pipe"), "{fault:?}: {closed}");
            }
        }
        let full = said(&verb, &[(Stream::Stderr, Fault::Full)]);
        assert_eq!(full.code, expected.code, "stderr is full: {full}");
    }
}

/// A result that is lost on a full disk is an error.
#[test]
fn no_room_for_the_result() {
    let folder = TempDir::new().unwrap();
    for verb in verbs(&folder) {
        let expected = said(&verb, &[]);
        let full = said(&verb, &[(Stream::Stdout, Fault::Full)]);
        if expected.stdout.is_empty() {
            assert_eq!(full.code, expected.code, "{full}");
            continue;
        }
        assert_eq!(full.code, 1, "{full}");
        let message = "error: failed to write to stdout\ncaused by: No space left on device";
        assert!(full.stderr.contains(message) && full.stderr.contains("\nhint: "), "{full}");
        let both = said(&verb, &[(Stream::Stdout, Fault::Full), (Stream::Stderr, Fault::Full)]);
        assert_eq!(both.code, 1, "{both}");
    }
}

/// Files have no colours, whatever their reader could display.
#[test]
fn no_colours_in_files() {
    let folder = TempDir::new().unwrap();
    for verb in verbs(&folder) {
        let said = said(&verb, &[]);
        assert!(!said.stdout.contains('\u{1b}') && !said.stderr.contains('\u{1b}'), "{said}");
    }
}
