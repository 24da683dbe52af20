//! The Debian package alone, as `cargo xtask dist` makes it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    arch::Arch,
    build_static, cross,
    dist::{
        commit::Commit,
        generated,
        nfpm::{self, Format},
    },
    root, setup,
};

/// Options of `deb`.
#[derive(clap::Args)]
pub struct Args {
    /// The package's revision: the part after the version in its name
    #[arg(long, default_value = "1")]
    revision: String,
    /// The package's architecture
    #[arg(long, value_name = "ARCH", default_value_t = Arch::native(), value_enum)]
    arch: Arch,
}

/// Builds the release binary, packs it, and prints the package's path.
pub fn run(args: &Args) -> anyhow::Result<()> {
    cross::ensure_possible(args.arch)?;
    let binary = build_static(args.arch)?;
    let package = pack(&binary, args.arch, &args.revision, &root().join("target/debian"))?;
    println!("{}", package.display());
    Ok(())
}

/// Packs a binary that is already built, and returns the package's path.
pub fn pack(binary: &Path, arch: Arch, revision: &str, into: &Path) -> anyhow::Result<PathBuf> {
    setup::for_packaging()?;
    fs::create_dir_all(into)?;
    let commit = Commit::current()?;
    let generated = generated::write(arch.is_native().then_some(binary))?;
    nfpm::Source { binary, generated: &generated, arch, revision, time: commit.time }
        .pack(Format::Deb, into)
}
