//! `cargo xtask dist`: the files of a release. For each architecture packages, a tarball and a
//! system extension; a container image of all; checksums, a bill of materials and licences. All
//! contain the same static binary, and the same commit gives the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::ensure;

use crate::{
    apt::{Apt, codename},
    arch::Arch,
    build_static, cargo, checked, cross, fresh, root, setup, vm,
};

mod bills;
pub mod commit;
pub mod generated;
mod image;
mod licences;
pub mod nfpm;
pub mod tree;

use commit::Commit;
use image::Image;
use nfpm::Format;
use tree::Tree;

/// Options of `dist`.
#[derive(clap::Args)]
pub struct Args {
    /// Only this architecture (repeatable); by default all that can be built on this machine
    #[arg(long = "arch", value_name = "ARCH", value_enum)]
    arches: Vec<Arch>,
    /// The packages' revision: the part after the version in their names
    #[arg(long, default_value = "1")]
    revision: String,
    /// Build the commit once more, in another directory, and compare every byte
    #[arg(long, conflicts_with = "unoptimized")]
    twice: bool,
    /// Pack the binary that the guests run, which is built sooner, to test the packages
    #[arg(long)]
    unoptimized: bool,
    /// Skip the tests of the files
    #[arg(long)]
    untested: bool,
}

/// Where the files of a release are.
const FOLDER: &str = "target/dist";

/// The size that no published binary exceeds.
const LARGEST: u64 = 9 << 20;

/// The version of all packages of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes the files of a release, tries those for which there is a tool here, and prints their
/// directory.
pub fn run(args: &Args) -> anyhow::Result<()> {
    for arch in &args.arches {
        cross::ensure_possible(*arch)?;
    }
    let is_wanted = |arch: &Arch| match args.arches.is_empty() {
        true => cross::ensure_possible(*arch).is_ok(),
        false => args.arches.contains(arch),
    };
    let arches: Vec<_> = Arch::ALL.into_iter().filter(is_wanted).collect();
    setup::for_releases()?;
    let commit = Commit::current()?;
    if let Some(change) = &commit.change {
        eprintln!("dist: the files cannot be reproduced: not of a commit: {change}");
        ensure!(!args.twice, "only a commit can be built twice\nhint: commit the changes first");
    }
    let out = root().join(FOLDER);
    make(args, &arches, &commit, &out)?;
    if !args.untested {
        test(&out)?;
    }
    if args.twice {
        again(args, &commit, &out)?;
    }
    println!("{}", out.display());
    Ok(())
}

fn make(args: &Args, arches: &[Arch], commit: &Commit, out: &Path) -> anyhow::Result<()> {
    fresh(out)?;
    let work = root().join("target/dist-work");
    let build = if args.unoptimized { vm::build_agent } else { build_static };
    let binaries: Vec<(Arch, PathBuf)> =
        arches.iter().map(|arch| Ok((*arch, build(*arch)?))).collect::<anyhow::Result<_>>()?;
    for (arch, binary) in binaries.iter().filter(|_| !args.unoptimized) {
        let size = fs::metadata(binary)?.len();
        let name = arch.facts().debian;
        ensure!(size <= LARGEST, "the binary for {name} has {size} bytes, more than {LARGEST}");
    }
    let native = binaries.iter().find(|(arch, _)| arch.is_native()).map(|(_, binary)| &**binary);
    let generated = generated::write(native)?;
    let mut image = Image::new(&work.join("image"), commit)?;
    for (arch, binary) in &binaries {
        let source = nfpm::Source {
            binary,
            generated: &generated,
            arch: *arch,
            revision: &args.revision,
            time: commit.time,
        };
        for format in [Format::Rpm, Format::Apk, Format::Arch] {
            source.pack(format, out)?;
        }
        let deb = source.pack(Format::Deb, out)?;
        let name = format!("portwatch-{VERSION}-{}", arch.facts().debian);
        let tree = Tree::unpack(&deb, &work.join(&name), commit.time)?;
        tree.tarball(&name, out)?;
        tree.extension(*arch, &name, out)?;
        image.add(*arch, &tree)?;
    }
    image.finish(out)?;
    fs::copy(generated.join(licences::FILE), out.join(licences::FILE))?;
    bills::write(arches, commit, out)?;
    sums(out)
}

const SUMS: &str = "SHA256SUMS";

fn sums(out: &Path) -> anyhow::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(out)?.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<_>>()?;
    names.sort();
    let sums = crate::quietly(Command::new("sha256sum").args(names).current_dir(out))?;
    fs::write(out.join(SUMS), sums)?;
    Ok(())
}

/// Installs, starts or lists each file (tests/dist).
fn test(out: &Path) -> anyhow::Result<()> {
    // With the features of `cargo xtask test`, so that nothing is compiled twice.
    checked(
        cargo()
            .args(["test", "--workspace", "--test", "dist"])
            .env("PORTWATCH_DIST", out)
            .env("PORTWATCH_OPENRC", openrc()?),
    )
}

/// Debian's OpenRC, unpacked: installed it would replace this machine's init system.
fn openrc() -> anyhow::Result<PathBuf> {
    let folder = root().join("target/openrc");
    let tree = folder.join("tree");
    if !tree.exists() {
        let release = codename()?;
        let security = format!("{release}-security");
        let apt = Apt::prepare(&folder.join("apt"), &[&release], &security, Arch::native())?;
        apt.unpack(&["openrc", "librc1", "libeinfo1"].map(str::to_owned), &tree)?;
    }
    Ok(tree)
}

/// Builds the commit in another directory, with another umask, time zone and language,
/// and compares the checksums.
fn again(args: &Args, commit: &Commit, out: &Path) -> anyhow::Result<()> {
    let clone = std::env::temp_dir().join(format!("portwatch-{}", std::process::id()));
    eprintln!("dist: building once more, in {}", clone.display());
    let _removed = Removed(&clone);
    commit.check_out(&clone)?;
    let mut dist = Command::new("sh");
    dist.args(["-c", "umask 0077; exec cargo xtask dist --untested \"$@\"", "sh"])
        .args(["--revision", &args.revision]);
    for arch in &args.arches {
        dist.args(["--arch", arch.facts().debian]);
    }
    // A directory of another name for what is compiled too.
    dist.current_dir(&clone).env_remove("CARGO_TARGET_DIR").stdout(Stdio::null());
    checked(dist.env("TZ", "Asia/Kathmandu").env("LC_ALL", "C.UTF-8"))?;
    let read = |folder: &Path| fs::read_to_string(folder.join(SUMS));
    let (one, other) = (read(out)?, read(&clone.join(FOLDER))?);
    let differ: Vec<_> = one.lines().filter(|line| !other.lines().any(|it| it == *line)).collect();
    ensure!(one == other, "the second build differs from the first in:\n{}", differ.join("\n"));
    eprintln!("dist: built twice, {} files, all the same", one.lines().count());
    Ok(())
}

/// A directory that is removed at the end.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        fs::remove_dir_all(self.0).ok();
    }
}
