//! The Debian package: cargo-deb builds it from the metadata in portwatch/Cargo.toml, after
//! the binary has written its manual pages and completions.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use crate::{arch::Arch, build, build_static, cargo, checked, cross, root, setup};

/// Options of `deb`.
#[derive(clap::Args)]
pub struct Args {
    /// The package's revision: the part after the version in its name
    #[arg(long, default_value = "1")]
    revision: String,
    /// The package's architecture. For another than this machine's, the binary needs no libraries
    #[arg(long, value_name = "ARCH", default_value_t = Arch::native(), value_enum)]
    arch: Arch,
}

/// Builds the release binary, packs it, and prints the package's path.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Args { revision, arch } = args;
    cross::ensure_possible(*arch)?;
    // This machine's binary also writes the manual pages and the completions.
    let binary = build()?;
    if arch.is_native() {
        let package = root().join(format!("target/debian/portwatch-{revision}.deb"));
        pack(&binary, &root().join("target"), &[], revision, &package)?;
        println!("{}", package.display());
        return Ok(());
    }
    build_static(*arch)?;
    let arch = arch.facts();
    let package = root().join(format!("target/debian/portwatch-{revision}-{}.deb", arch.debian));
    let options = ["--target", arch.target];
    pack(&binary, &root().join(cross::FOLDER), &options, revision, &package)?;
    println!("{}", package.display());
    Ok(())
}

/// Packs a binary that is already built, in `target_dir` or in the directory below it that
/// `--target` and `--profile` select.
pub fn pack(
    binary: &Path,
    target_dir: &Path,
    options: &[&str],
    revision: &str,
    to: &Path,
) -> anyhow::Result<()> {
    setup::for_packaging()?;
    let shared = root().join("target/package");
    let (man, completions) = (shared.join("man"), shared.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder)?;
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    checked(Command::new(binary).arg("man").arg(&man))?;
    for shell in ["bash", "zsh", "fish"] {
        let file = completions.join(format!("portwatch.{shell}"));
        let file =
            File::create(&file).with_context(|| format!("cannot make {}", file.display()))?;
        checked(Command::new(binary).args(["completions", shell]).stdout(file))?;
    }
    checked(
        cargo()
            .args(["deb", "--quiet", "--no-build", "--package", "portwatch"])
            .args(["--deb-revision", revision, "--output"])
            .arg(to)
            .args(options)
            .env("CARGO_TARGET_DIR", target_dir)
            // cargo-deb prints the package's path.
            .stdout(Stdio::null()),
    )
}
