//! Stock kernels from Debian's archive. Versions rotate there, so the newest of a series is
//! used, and cached by version and checksum.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::{
    apt::{Apt, find},
    arch::Arch,
    quietly,
};

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

/// Fetches and unpacks the newest kernel of a series, or of all for `newest`. `-16k` after the
/// series means a kernel with pages of 16 KiB.
pub fn fetch(arch: Arch, series: &str, cache: &Path) -> anyhow::Result<Kernel> {
    let (series, flavour) = match series.strip_suffix("-16k") {
        Some(series) => (series, format!("-{}-16k", arch.facts().debian)),
        None => (series, format!("-cloud-{}", arch.facts().debian)),
    };
    let (main, security) = suites(series);
    let lists = match arch.is_native() {
        true => main.to_owned(),
        false => format!("{main}-{}", arch.facts().debian),
    };
    let apt = Apt::prepare(&cache.join("apt").join(lists), &[main], security, arch)?;
    let tree = tree(&apt, series, &flavour, &cache.join("trees"))?;
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

/// Unpacks the newest kernel that can be downloaded: the archive's lists may name versions that
/// it has removed.
fn tree(apt: &Apt, series: &str, flavour: &str, trees: &Path) -> anyhow::Result<PathBuf> {
    let names = quietly(apt.command("apt-cache").args(["pkgnames", "linux-"]))?;
    let mut failure = None;
    for packages in newest_first(series, flavour, &names) {
        let tree = trees.join(apt.cached_as(&packages)?);
        if tree.exists() {
            return Ok(tree);
        }
        match apt.unpack(&packages, &tree) {
            Ok(()) => return Ok(tree),
            Err(error) => {
                eprintln!("vm: {}: {error:#}", packages.join(", "));
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) => Err(error.context("no kernel of the series can be downloaded")),
        None => bail!("the archive has no kernel {series}{flavour}\nhint: 6.12, or newest"),
    }
}

/// Returns the packages of each version of a series, the newest first. From 6.19 on the image is
/// split: its package is empty, and two others have its content, of which the archive removes
/// the modules' sooner.
fn newest_first(series: &str, flavour: &str, names: &str) -> Vec<Vec<String>> {
    let has = |name: &str| names.lines().any(|line| line == name);
    let head = match series {
        "newest" => String::new(),
        series => format!("{series}."),
    };
    let packages = |version: &str| {
        let named = |part: &str| format!("linux-{part}-{version}{flavour}");
        let (image, binary, modules) = (named("image"), named("binary"), named("modules"));
        match (has(&binary), has(&modules)) {
            (true, true) => Some(vec![binary, modules]),
            (true, false) => None,
            (false, _) => Some(vec![image]),
        }
    };
    let mut versions: Vec<_> = names
        .lines()
        .filter_map(|name| name.strip_prefix("linux-image-")?.strip_suffix(flavour))
        .filter(|version| version.starts_with(|char: char| char.is_ascii_digit()))
        .filter(|version| version.starts_with(&head))
        .filter_map(|version| Some((numbers(version), packages(version)?)))
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, packages)| packages).collect()
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
        let newest_first = |series| newest_first(series, "-cloud-amd64", names).concat();
        let of_6_1 = ["linux-image-6.1.0-56-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64"];
        assert_eq!(newest_first("6.1"), of_6_1);
        assert_eq!(newest_first("newest")[0], "linux-image-6.12.1-cloud-amd64");
        assert!(newest_first("5.10").is_empty());
    }

    #[test]
    fn a_split_kernel_is_two_packages_and_both_must_be_there() {
        let names = "linux-image-cloud-amd64\nlinux-image-7.0.13+deb13-cloud-amd64\n\
                     linux-binary-7.0.13+deb13-cloud-amd64\nlinux-image-7.0.12+deb13-cloud-amd64\n\
                     linux-binary-7.0.12+deb13-cloud-amd64\nlinux-modules-7.0.12+deb13-cloud-amd64";
        assert_eq!(
            newest_first("newest", "-cloud-amd64", names)[0],
            ["linux-binary-7.0.12+deb13-cloud-amd64", "linux-modules-7.0.12+deb13-cloud-amd64"]
        );
    }
}
