//! What the binary writes of itself, manual pages and completions, and the licences of what is in
//! it. They are the same for every architecture.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{licences, tree::gzip};
use crate::{cargo, checked, fresh, root};

/// Writes them into a directory and returns it. A binary of another architecture cannot run
/// here; without one for this machine, one is built.
pub fn write(binary: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/package");
    fresh(&folder)?;
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder)?;
    }
    let built;
    let binary = match binary {
        Some(binary) => binary,
        None => {
            checked(cargo().args(["build", "--package", "portwatch"]))?;
            built = root().join("target/debug/portwatch");
            &built
        }
    };
    checked(Command::new(binary).arg("man").arg(&man))?;
    let mut pages: Vec<_> =
        fs::read_dir(&man)?.map(|page| Ok(page?.path())).collect::<anyhow::Result<_>>()?;
    pages.sort();
    // Without names and times in them.
    checked(gzip().args(pages))?;
    for shell in ["bash", "zsh", "fish"] {
        let file = completions.join(format!("portwatch.{shell}"));
        let file =
            File::create(&file).with_context(|| format!("cannot make {}", file.display()))?;
        checked(Command::new(binary).args(["completions", shell]).stdout(file))?;
    }
    fs::write(folder.join(licences::FILE), licences::text()?)?;
    Ok(folder)
}
