//! Texts that are written twice are equal, and links have a target.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    root,
    versions::{
        BPF_LINKER, CARGO_CYCLONEDX, CARGO_DENY, NFPM, NIGHTLY, OLDEST_QEMU, PACKAGED_COMPILER,
        TYPOS,
    },
};

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The settings below a heading of a TOML file, up to the next one.
fn table(text: &str, heading: &str) -> BTreeMap<String, String> {
    text.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_kernel_side_has_the_lints_of_the_workspace() {
    let (workspace, kernel) = (read("Cargo.toml"), read("portwatch-ebpf/Cargo.toml"));
    for kind in ["rust", "clippy"] {
        let ours = table(&workspace, &format!("[workspace.lints.{kind}]"));
        assert!(!ours.is_empty(), "{kind}");
        assert_eq!(table(&kernel, &format!("[lints.{kind}]")), ours, "{kind}");
    }
}

#[test]
fn the_documents_name_the_versions_that_are_used() {
    let text = read("docs/building.md");
    let row = |name: &str, version: &str| {
        let row = text.lines().find(|line| line.starts_with(&format!("| {name} |")));
        assert!(row.is_some_and(|row| row.contains(version)), "{name}: {row:?}, not {version}");
    };
    row("bpf-linker", BPF_LINKER);
    row("cargo-cyclonedx", CARGO_CYCLONEDX);
    row("cargo-deny", CARGO_DENY.version);
    row("typos", TYPOS.version);
    row("nfpm", NFPM.version);
    row("QEMU", &OLDEST_QEMU.to_string());
    for package in PACKAGED_COMPILER.iter().chain([&NIGHTLY]) {
        row("compiler of the kernel side", package);
    }
    let rust = table(&read("Cargo.toml"), "[workspace.package]")["rust-version"].replace('"', "");
    row("Rust", &rust);
    for document in ["README.md", "CONTRIBUTING.md"] {
        assert!(read(document).contains(&rust), "{document} does not name Rust {rust}");
    }
}

/// Every document of the top level and below docs.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn links_lead_to_files() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.contains(' ') {
                continue;
            }
            let target = document.parent().unwrap().join(path);
            assert!(target.exists(), "{}: {link}", document.display());
            links += 1;
        }
    }
    assert!(links > 50, "{links} links");
}

#[test]
fn each_decision_is_short_and_stands_in_the_index() {
    let folder = root().join("docs/decisions");
    let index = read(folder.join("README.md"));
    for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        assert!(index.contains(&format!("]({name})")), "{name} is not in the index");
        let text = read(entry.path());
        for part in ["## Context", "## Decision", "## Consequences"] {
            assert!(text.contains(part), "{name}: no {part}");
        }
        assert!(text.lines().count() <= 40, "{name} is longer than 40 lines");
    }
}
