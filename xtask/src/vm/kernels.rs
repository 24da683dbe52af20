//! Stock kernels out of Debian's archive, through an apt configuration of our
//! own that leaves the system's untouched. Versions rotate there, so the newest
//! of a series is asked for, and what was fetched is kept by its file name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::vm::quietly;

/// A kernel that is ready to boot.
pub struct Kernel {
    pub version: String,
    pub vmlinuz: PathBuf,
    pub modules: PathBuf,
}

/// The suites that have a series, of the main and of the security archive.
fn suites(series: &str) -> Option<(&'static str, &'static str)> {
    Some(match series {
        "5.10" => ("bullseye", "bullseye-security"),
        "6.1" => ("bookworm", "bookworm-security"),
        "6.12" => ("trixie", "trixie-security"),
        "6.16" | "6.18" => ("trixie-backports", "trixie-security"),
        _ => return None,
    })
}

/// Fetches and unpacks the newest kernel of a series.
pub fn fetch(series: &str, cache: &Path) -> anyhow::Result<Kernel> {
    let Some((main, security)) = suites(series) else {
        bail!("no kernel series {series}\nhint: 5.10, 6.1, 6.12, 6.16 or 6.18");
    };
    let apt = Apt::prepare(&cache.join("apt").join(series), main, security)?;
    let package = apt.newest(series)?;
    let debs = cache.join("debs");
    fs::create_dir_all(&debs)?;
    let deb = match kept(&debs, &package) {
        Some(deb) => deb,
        None => {
            eprintln!("vm: fetching {package}");
            // apt checks the archive's signed checksum of what it downloads.
            quietly(apt.command("apt-get").args(["download", &package]).current_dir(&debs))?;
            kept(&debs, &package).context("apt-get download left no file")?
        }
    };
    let tree = cache.join("trees").join(&package);
    if !tree.exists() {
        let part = tree.with_extension("part");
        fs::create_dir_all(&part)?;
        quietly(Command::new("dpkg").arg("-x").arg(&deb).arg(&part))?;
        fs::rename(&part, &tree)?;
    }
    let vmlinuz = find(&tree.join("boot"), "vmlinuz-")?;
    let version = vmlinuz
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
        .context("a kernel without a version")?;
    // Since trixie the packages have everything below /usr.
    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|folder| tree.join(folder).join(&version))
        .into_iter()
        .find(|folder| folder.is_dir())
        .context("a kernel without modules")?;
    Ok(Kernel { modules, version, vmlinuz })
}

fn kept(debs: &Path, package: &str) -> Option<PathBuf> {
    find(debs, &format!("{package}_")).ok()
}

/// The file in `folder` whose name starts with `head`.
fn find(folder: &Path, head: &str) -> anyhow::Result<PathBuf> {
    fs::read_dir(folder)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(head))
        .map(|entry| entry.path())
        .with_context(|| format!("no {head}* in {}", folder.display()))
}

/// apt with its own sources and lists.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn prepare(folder: &Path, main: &str, security: &str) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let (archive, security_archive) = mirrors()?;
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(
            folder.join("sources.list"),
            format!(
                "deb [signed-by={keyring}] {archive} {main} main\n\
                 deb [signed-by={keyring}] {security_archive} {security} main\n"
            ),
        )?;
        let apt = Self { folder: fs::canonicalize(folder)? };
        quietly(apt.command("apt-get").args(["update", "--quiet"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
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
        command
    }

    /// The newest `linux-image-*-cloud-amd64` of a series.
    fn newest(&self, series: &str) -> anyhow::Result<String> {
        let names = quietly(self.command("apt-cache").args(["pkgnames", "linux-image-"]))?;
        newest_of(series, &names).with_context(|| format!("the archive has no kernel {series}"))
    }
}

/// Picks by the numbers in the name, compared one by one.
fn newest_of(series: &str, names: &str) -> Option<String> {
    let head = format!("linux-image-{series}.");
    names
        .lines()
        .filter(|name| name.starts_with(&head) && name.ends_with("-cloud-amd64"))
        .max_by_key(|name| {
            name.split(|char: char| !char.is_ascii_digit())
                .filter_map(|number| number.parse::<u32>().ok())
                .collect::<Vec<_>>()
        })
        .map(str::to_owned)
}

/// The archives that this system itself uses.
fn mirrors() -> anyhow::Result<(String, String)> {
    let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
        text.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
        text.push('\n');
    }
    mirrors_in(&text).context(
        "this system's apt sources name no Debian archive, from which the kernels would come",
    )
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
    fn the_newest_of_a_series_is_picked() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-56-cloud-amd64-unsigned\nlinux-image-6.12.1-cloud-amd64\n";
        assert_eq!(newest_of("6.1", names).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(newest_of("5.10", names), None);
    }

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
