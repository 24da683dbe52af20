//! Kernel modules and their dependencies; the guest loads none by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// What the tests need, if the kernel has it as a module.
pub const OF_TESTS: [&str; 5] = ["inet_diag", "tcp_diag", "udp_diag", "vxlan", "sctp"];

/// A module, unpacked.
pub struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Returns all needed modules, each after its dependencies.
pub fn needed(folder: &Path, wanted: &[&str]) -> anyhow::Result<Vec<Module>> {
    let files = files_below(&folder.join("kernel"))?;
    let mut modules = Vec::new();
    for name in wanted {
        add(name, &files, &mut modules)?;
    }
    Ok(modules)
}

fn add(name: &str, files: &[PathBuf], modules: &mut Vec<Module>) -> anyhow::Result<()> {
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    // A module without a file is built in.
    let Some(file) = files.iter().find(|file| name_of(file).as_deref() == Some(name)) else {
        return Ok(());
    };
    let bytes = unpacked(file)?;
    for other in depends(&bytes) {
        add(&other, files, modules)?;
    }
    modules.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

/// A module's name, which has underscores where its file has dashes.
fn name_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let (stem, ending) = name.split_once('.')?;
    matches!(ending, "ko" | "ko.xz").then(|| stem.replace('-', "_"))
}

/// Returns the dependencies of a module (`depends=` in its `.modinfo`).
fn depends(module: &[u8]) -> Vec<String> {
    module
        .split(|&byte| byte == 0)
        .find_map(|text| std::str::from_utf8(text).ok()?.strip_prefix("depends="))
        .map(|names| names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default()
}

fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("no modules in {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Returns a module's bytes: from `.ko`, or from `.ko.xz` on newer kernels.
fn unpacked(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file.extension().is_none_or(|ending| ending != "xz") {
        return Ok(fs::read(file)?);
    }
    let output = Command::new("xz").arg("-dc").arg(file).output()?;
    ensure!(output.status.success(), "{} cannot be unpacked", file.display());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_in_its_own_words() {
        let module = b"\x7fELF\0license=GPL\0depends=libcrc32c,ip6_udp_tunnel\0name=x\0";
        assert_eq!(depends(module), ["libcrc32c", "ip6_udp_tunnel"]);
        assert!(depends(b"depends=\0").is_empty());
        assert_eq!(name_of(Path::new("/a/nf-conntrack.ko.xz")).unwrap(), "nf_conntrack");
        assert_eq!(name_of(Path::new("/a/modules.builtin")), None);
    }
}
