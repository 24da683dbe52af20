//! The files of a release, tried with each format's own tool: checked, listed, installed into a
//! directory, started. `cargo xtask dist` makes them, and runs this with their directory in
//! `PORTWATCH_DIST`. The Debian guest installs the deb and the system extension for real.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test and says where"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use portwatch_tests::skip::skip;
use serde_json::Value;

mod image;
mod openrc;
mod packages;

/// The names of an architecture: Debian's, and that of rpm, apk and Arch.
const ARCHES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

/// The directory; `None` if no release was made.
fn dist() -> Option<PathBuf> {
    let folder = env::var_os("PORTWATCH_DIST").map(PathBuf::from);
    if folder.is_none() {
        skip("dist", "a release");
    }
    folder
}

/// The architectures that are in it.
fn arches(dist: &Path) -> Vec<(&'static str, &'static str)> {
    let is_there = |debian: &str| find(dist, &format!("-{debian}.tar.gz")).is_some();
    let there: Vec<_> = ARCHES.into_iter().filter(|(debian, _)| is_there(debian)).collect();
    assert!(!there.is_empty(), "no tarball in {}", dist.display());
    there
}

/// The architecture of this machine, if it is in it.
fn own(dist: &Path) -> Option<(&'static str, &'static str)> {
    let own = |(_, name): &(&str, &str)| *name == env::consts::ARCH;
    arches(dist).into_iter().find(own)
}

fn find(dist: &Path, tail: &str) -> Option<PathBuf> {
    let mut names = fs::read_dir(dist).unwrap().map(|entry| entry.unwrap().path());
    names.find(|path| path.to_string_lossy().ends_with(tail))
}

#[track_caller]
fn file(dist: &Path, tail: &str) -> PathBuf {
    find(dist, tail).unwrap_or_else(|| panic!("no *{tail} in {}", dist.display()))
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command prints; it must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = output(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {}: {errors}{said}", output.status);
    said
}

#[test]
fn the_sums_are_right_and_of_every_file() {
    let Some(dist) = dist() else { return };
    let sums = dist.join("SHA256SUMS");
    run(Command::new("sha256sum").args(["--check", "--strict"]).arg(&sums).current_dir(&dist));
    let files = fs::read_dir(&dist).unwrap().count();
    assert_eq!(fs::read_to_string(sums).unwrap().lines().count(), files - 1);
}

/// An empty root has no /proc either: what needs nothing works, the rest says what it lacks.
#[test]
fn the_tarball_runs_in_an_empty_root() {
    let Some(dist) = dist() else { return };
    let root = tempfile::tempdir().unwrap();
    for (debian, _) in arches(&dist) {
        let tarball = file(&dist, &format!("-{debian}.tar.gz"));
        run(Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(&tarball)
            .arg("-C")
            .arg(root.path()));
        let name = tarball.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
        let folder = root.path().join(name);
        let left = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let left: BTreeSet<_> = left.map(|name| name.into_string().unwrap()).collect();
        assert_eq!(left, BTreeSet::from(["etc".to_owned(), "usr".to_owned()]));
        if own(&dist).is_none_or(|(own, _)| own != debian) {
            continue;
        }
        let portwatch = |args: &[&str]| {
            let mut command = Command::new("chroot");
            output(command.arg(&folder).arg("/usr/bin/portwatch").args(args))
        };
        let version = portwatch(&["--version"]);
        assert!(version.status.success());
        assert!(String::from_utf8_lossy(&version.stdout).starts_with("portwatch "));
        assert!(portwatch(&["schema"]).status.success());
        let doctor = portwatch(&["doctor", "--json"]);
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        assert!(report["problem"].is_string(), "{report}");
        let explained = portwatch(&["explain", "8080"]);
        assert_eq!(explained.status.code(), Some(1));
        let error = String::from_utf8_lossy(&explained.stderr).into_owned();
        assert!(error.contains("/proc"), "{error}");
    }
}

/// systemd-sysext(8) takes /usr and /opt from an extension, if its name is that of the description
/// in it.
#[test]
fn the_system_extension_has_its_description_and_usr_only() {
    let Some(dist) = dist() else { return };
    for (debian, _) in arches(&dist) {
        let image = file(&dist, &format!("-{debian}.raw"));
        let list = run(Command::new("unsquashfs").args(["-lls", "-dest", ""]).arg(&image));
        let paths: Vec<_> = list.lines().filter(|line| line.contains(" /")).collect();
        assert!(paths.len() > 30, "{list}");
        for line in &paths {
            assert!(line.contains("root/root"), "{line}");
            assert!(line.ends_with(" /") || line.contains(" /usr"), "{line}");
        }
        let release = "usr/lib/extension-release.d/extension-release.portwatch";
        let text = run(Command::new("unsquashfs").arg("-cat").arg(&image).arg(release));
        let arch = if debian == "amd64" { "x86-64" } else { debian };
        assert!(text.lines().any(|line| line == "ID=_any"), "{text}");
        assert!(text.lines().any(|line| line == format!("ARCHITECTURE={arch}")), "{text}");
        let unit = "usr/lib/systemd/system/portwatch.service";
        assert!(
            run(Command::new("unsquashfs").arg("-cat").arg(&image).arg(unit)).contains("ExecStart")
        );
    }
}

/// Every library whose licence is in the release is in a bill of materials, with its version.
#[test]
fn the_bills_of_materials_have_every_library() {
    let Some(dist) = dist() else { return };
    let mut listed = BTreeSet::new();
    let architectures = arches(&dist).into_iter().map(|(debian, _)| debian);
    let binaries = architectures.map(|debian| format!("-{debian}.cdx.json"));
    let object = format!("portwatch-ebpf-{}.cdx.json", env!("CARGO_PKG_VERSION"));
    for (tail, is_binary) in binaries.map(|tail| (tail, true)).chain([(object, false)]) {
        let text = fs::read_to_string(file(&dist, &tail)).unwrap();
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR").strip_suffix("/tests").unwrap()));
        let bill: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(bill["bomFormat"], "CycloneDX");
        let mut versions = BTreeMap::new();
        for component in bill["components"].as_array().unwrap() {
            let field = |name: &str| component[name].as_str().unwrap().to_owned();
            assert!(!component["licenses"].is_null(), "{component}");
            listed.insert(format!("{} {}", field("name"), field("version")));
            versions.insert(field("name"), field("version"));
        }
        for library in ["rust-std", "glibc", "libgcc"] {
            let version = versions.get(library);
            assert_eq!(
                version.is_some_and(|it| it.contains('.')),
                is_binary,
                "{library}: {version:?}"
            );
        }
    }
    let licences = fs::read_to_string(dist.join("THIRD-PARTY.txt")).unwrap();
    let libraries: BTreeSet<_> = licences
        .lines()
        .skip_while(|line| !line.ends_with(" libraries:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.trim().split_once(": ").unwrap().0.to_owned())
        .collect();
    assert!(libraries.len() > 100, "{libraries:?}");
    let missing: Vec<_> = libraries.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
