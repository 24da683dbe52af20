//! Stock kernels from Debian's archive. Versions rotate there, so the newest of a series is
//! used, and cached by version and checksum.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::vm::{apt::Apt, quietly};

/// A kernel that is ready to boot.
pub struct Kernel {
    /// As `uname -r` prints it.
    pub version: String,
    pub vmlinuz: PathBuf,
    /// The directory of its modules.
    pub modules: PathBuf,
}

/// Returns Debian's suites that have a series: the release's own, and that of its security
/// updates. Kernels newer than the releases' are in the backports.
fn suites(series: &str) -> (&'static str, &'static str) {
    match series {
        "5.10" => ("bullseye", "bullseye-security"),
        "6.1" => ("bookworm", "bookworm-security"),
        "6.12" => ("trixie", "trixie-security"),
        _ => ("trixie-backports", "trixie-security"),
    }
}

/// Fetches and unpacks the newest kernel of a series, or of all for `newest`.
pub fn fetch(series: &str, cache: &Path) -> anyhow::Result<Kernel> {
    let (main, security) = suites(series);
    let apt = Apt::prepare(&cache.join("apt").join(main), &[main], security)?;
    let packages = newest(&apt, series)?;
    let tree = cache.join("trees").join(apt.cached_as(&packages)?);
    if !tree.exists() {
        let part = tree.with_extension("part");
        fs::create_dir_all(&part)?;
        for package in &packages {
            eprintln!("vm: fetching {package}");
            // apt checks the archive's signed checksum of what it downloads.
            quietly(apt.command("apt-get").args(["download", package]).current_dir(&part))?;
            let deb = find(&part, &format!("{package}_"))?;
            quietly(Command::new("dpkg").arg("-x").arg(&deb).arg(&part))?;
            fs::remove_file(&deb)?;
        }
        fs::rename(&part, &tree)?;
    }
    // Since trixie the packages have everything below /usr.
    let modules = ["usr/lib/modules", "lib/modules"]
        .into_iter()
        .find_map(|folder| find(&tree.join(folder), "").ok())
        .context("a kernel without modules")?;
    let version = modules.file_name().and_then(|name| name.to_str());
    let version = version.context("a kernel without a version")?.to_owned();
    let vmlinuz = [tree.join("boot").join(format!("vmlinuz-{version}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|file| file.exists())
        .with_context(|| format!("no kernel image of {version}"))?;
    Ok(Kernel { modules, version, vmlinuz })
}

/// The file in `folder` whose name starts with `head`.
fn find(folder: &Path, head: &str) -> anyhow::Result<PathBuf> {
    fs::read_dir(folder)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(head))
        .map(|entry| entry.path())
        .with_context(|| format!("no {head}* in {}", folder.display()))
}

/// The packages of the newest kernel of a series.
fn newest(apt: &Apt, series: &str) -> anyhow::Result<Vec<String>> {
    let names = quietly(apt.command("apt-cache").args(["pkgnames", "linux-"]))?;
    newest_of(series, &names)
        .with_context(|| format!("the archive has no kernel {series}\nhint: 6.12, or newest"))
}

const FLAVOUR: &str = "-cloud-amd64";

/// Returns the packages of the newest version of a series. From 6.19 on the image is split:
/// its package is empty, and two others have its content, of which the archive removes the
/// modules' sooner.
fn newest_of(series: &str, names: &str) -> Option<Vec<String>> {
    let has = |name: &str| names.lines().any(|line| line == name);
    let head = match series {
        "newest" => String::new(),
        series => format!("{series}."),
    };
    let packages = |version: &str| {
        let named = |part: &str| format!("linux-{part}-{version}{FLAVOUR}");
        let (image, binary, modules) = (named("image"), named("binary"), named("modules"));
        match (has(&binary), has(&modules)) {
            (true, true) => Some(vec![binary, modules]),
            (true, false) => None,
            (false, _) => Some(vec![image]),
        }
    };
    names
        .lines()
        .filter_map(|name| name.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR))
        .filter(|version| version.starts_with(|char: char| char.is_ascii_digit()))
        .filter(|version| version.starts_with(&head))
        .filter_map(|version| Some((numbers(version), packages(version)?)))
        .max()
        .map(|(_, packages)| packages)
}

/// Returns the numbers in a version, to compare them one by one.
pub fn numbers(version: &str) -> Vec<u32> {
    version
        .split(|char: char| !char.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_picked() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-56-cloud-amd64-unsigned\nlinux-image-6.12.1-cloud-amd64\n";
        assert_eq!(newest_of("6.1", names).unwrap(), ["linux-image-6.1.0-56-cloud-amd64"]);
        assert_eq!(newest_of("newest", names).unwrap(), ["linux-image-6.12.1-cloud-amd64"]);
        assert_eq!(newest_of("5.10", names), None);
    }

    #[test]
    fn a_split_kernel_is_two_packages_and_both_must_be_there() {
        let names = "linux-image-cloud-amd64\nlinux-image-7.0.13+deb13-cloud-amd64\n\
                     linux-binary-7.0.13+deb13-cloud-amd64\nlinux-image-7.0.12+deb13-cloud-amd64\n\
                     linux-binary-7.0.12+deb13-cloud-amd64\nlinux-modules-7.0.12+deb13-cloud-amd64";
        assert_eq!(
            newest_of("newest", names).unwrap(),
            ["linux-binary-7.0.12+deb13-cloud-amd64", "linux-modules-7.0.12+deb13-cloud-amd64"]
        );
    }
}
