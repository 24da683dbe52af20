//! apt with its own sources and lists: the system's stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{arch::Arch, quietly};

/// The keys that sign Debian's archives.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with its own sources and lists.
pub struct Apt {
    folder: PathBuf,
    arch: Arch,
}

impl Apt {
    /// Fetches the lists of some suites of Debian's archive and one of its security updates.
    pub fn prepare(
        folder: &Path,
        suites: &[&str],
        security: &str,
        arch: Arch,
    ) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let (archive, security_archive) = mirrors()?;
        let sources = suites
            .iter()
            .map(|suite| (&archive, *suite))
            .chain([(&security_archive, security)])
            .map(|(archive, suite)| format!("deb [signed-by={KEYRING}] {archive} {suite} main\n"))
            .collect::<String>();
        fs::write(folder.join("sources.list"), sources)?;
        let apt = Self { folder: fs::canonicalize(folder)?, arch };
        quietly(apt.command("apt-get").args(["update", "--quiet"]))?;
        Ok(apt)
    }

    /// One of apt's programs.
    pub fn command(&self, program: &str) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        // Packages of another architecture are downloaded only. This machine's do not matter.
        if !self.arch.is_native() {
            let debian = self.arch.facts().debian;
            command.args(["-o", &format!("APT::Architecture={debian}")]);
            command.args(["-o", &format!("APT::Architectures={debian}")]);
            command.args(["-o", "Dir::State::status=/dev/null"]);
        }
        command
    }

    /// Downloads packages (`NAME` or `NAME=VERSION`) and unpacks them into a folder, which is there
    /// only if all of them are in it.
    pub fn unpack(&self, packages: &[String], into: &Path) -> anyhow::Result<()> {
        let part = into.with_extension("part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir_all(&part)?;
        for package in packages {
            eprintln!("fetching {package}");
            // apt checks the archive's signed checksum of what it downloads.
            quietly(self.command("apt-get").args(["download", package]).current_dir(&part))?;
            let name = package.split('=').next().unwrap_or(package);
            let deb = find(&part, &format!("{name}_"))?;
            quietly(Command::new("dpkg").arg("-x").arg(&deb).arg(&part))?;
            fs::remove_file(&deb)?;
        }
        fs::rename(&part, into)?;
        Ok(())
    }

    /// Returns a name for the packages' content: the first package's name, and the beginnings
    /// of all checksums.
    pub fn cached_as(&self, packages: &[String]) -> anyhow::Result<String> {
        let mut name = packages.first().context("no package")?.clone();
        for package in packages {
            let shown = quietly(self.command("apt-cache").args(["show", package]))?;
            let sum = shown.lines().find_map(|line| line.strip_prefix("SHA256: "));
            let sum = sum.and_then(|sum| sum.get(..12)).context("a package without a checksum")?;
            name.push('-');
            name.push_str(sum);
        }
        // A dot would begin an extension.
        ensure!(!name.contains('/'), "a package's name is no path");
        Ok(name.replace('.', "_"))
    }
}

/// The file in `folder` whose name starts with `head`.
pub fn find(folder: &Path, head: &str) -> anyhow::Result<PathBuf> {
    fs::read_dir(folder)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(head))
        .map(|entry| entry.path())
        .with_context(|| format!("no {head}* in {}", folder.display()))
}

/// The release's name (os-release(5)).
pub fn codename() -> anyhow::Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("what system is this?")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("this system's release has no name\nhint: run this on Debian")
}

/// The archives that this system itself uses.
pub fn mirrors() -> anyhow::Result<(String, String)> {
    let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
        text.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
        text.push('\n');
    }
    mirrors_in(&text).context("this system's apt sources name no Debian archive")
}

fn mirrors_in(text: &str) -> Option<(String, String)> {
    let words: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .collect();
    let ending =
        |tail: &str| words.iter().find(|word| word.ends_with(tail)).map(|&word| word.to_owned());
    Some((ending("/debian")?, ending("/debian-security")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_from_both_forms_of_sources() {
        let deb822 =
            "URIs: http://mirror.example/debian\nURIs: http://mirror.example/debian-security/";
        let lines = "# deb http://no.example/debian x main\n\
                     deb http://mirror.example/debian stable main\n\
                     deb http://mirror.example/debian-security stable-security main";
        for text in [deb822, lines] {
            assert_eq!(
                mirrors_in(text),
                Some((
                    "http://mirror.example/debian".to_owned(),
                    "http://mirror.example/debian-security".to_owned()
                ))
            );
        }
    }
}
