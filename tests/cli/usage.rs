//! Bad arguments: exit code 2, and a hint.

use portwatch_tests::command::{portwatch, run};

#[test]
fn bad_arguments() {
    for arguments in [
        &["frobnicate"][..],
        &["--no-such-flag"],
        &["run", "--no-such-flag"],
        &["run", "--format", "xml"],
        &["run", "--format"],
        &["run", "surplus"],
        &["doctor", "--no-such-flag"],
        &["run", "--format", "json", "--format", "human"],
        &["run", "--capture"],
        &["run", "--capture-size", "1GiB"],
        &["run", "--storm-window", "soon"],
        &["replay", "--port", "x", "-"],
        &["replay", "--until", "never", "-"],
        &["history", "--format", "journald", "-"],
        &["exec"],
        &["exec", "--"],
        &["exec", "--wait-free", "soon", "true"],
        &["exec", "--no-such-flag", "true"],
        &["exec", "--format", "markdown", "true"],
        &["completions"],
        &["completions", "tcsh"],
        // These are not ports.
        &["run", "--port", "70000"],
        &["run", "--port", "0"],
        &["run", "--port=-1"],
        &["run", "--port", "http"],
        &["explain"],
        &["explain", "0"],
        &["explain", "no-such-service"],
        &["explain", "localhost:8080"],
        &["explain", "[fe80::1%no-such-if]:80"],
        &["explain", "[fe80::1]%2147483646:80"],
        &["explain", "[fe80::1%no-such-if]:80", "--netns", "all"],
        &["explain", "[fe80::1%]:80"],
        &["wait", "[fe80::1%no-such-if]:80", "--free"],
        &["explain", "8080", "--netns", "no-such-namespace"],
        &["explain", "8080", "--netns", "/etc/passwd"],
        &["explain", "8080", "--netns", "0"],
        &["explain", "8080", "--format", "journald"],
        &["schema", "nothing"],
        &["wait", "8080"],
        &["wait", "--free"],
        &["wait", "8080", "--free", "--listening"],
        &["wait", "8080", "--listening", "--reuseaddr"],
        &["wait", "0", "--free"],
        &["wait", "65536", "--free"],
        &["wait", "-1", "--free"],
        &["wait", "no-such-service", "--free"],
        &["wait", "127.0.0.1", "--free"],
        &["wait", "::1:8080", "--free"],
        &["wait", "localhost:8080", "--free"],
        &["wait", "8080", "--free", "--timeout", "soon"],
        &["wait", "8080", "--free", "--timeout=-1s"],
        &["wait", "8080", "--free", "--format", "markdown"],
    ] {
        run(&mut portwatch(arguments)).is_error(2);
    }
}

/// The message names the invalid argument.
#[test]
fn the_culprit_is_named() {
    for (arguments, culprit) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["run", "--format", "xml"], "xml"),
        (&["run", "--port", "70000"], "70000"),
        (&["explain", "[fe80::1%no-such-if]:80"], "`no-such-if`"),
        (&["wait", "8080", "65536", "--free"], "65536"),
        (&["wait", "localhost:8080", "--free"], "localhost"),
        (&["wait", "gopher9", "--free", "--udp"], "no udp service"),
    ] {
        let said = run(&mut portwatch(arguments));
        said.is_error(2);
        assert!(said.stderr.contains(culprit), "{said}");
    }
}

#[test]
fn no_arguments() {
    let said = run(&mut portwatch(&[]));
    assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{said}");
    assert!(said.stderr.contains("run"), "{said}");
}

#[test]
fn help_and_version() {
    let help = run(&mut portwatch(&["--help"]));
    help.is_result();
    assert!(help.stdout.contains("doctor") && help.stderr.is_empty(), "{help}");
    let version = run(&mut portwatch(&["--version"]));
    version.is_result();
    assert!(version.stdout.starts_with("portwatch "), "{version}");
}
