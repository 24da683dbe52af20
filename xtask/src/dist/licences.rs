//! The licences of everything that is linked into the binary, as one text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{arch::Arch, cargo, quietly, root};

/// The file's name.
pub const FILE: &str = "THIRD-PARTY.txt";

const HEAD: &str = "\
The portwatch binary contains the libraries below. portwatch itself is MIT or Apache-2.0, its eBPF
object is MIT or GPL-2.0-only.

The binary is linked statically, so it also contains parts of
- the Rust standard library, MIT or Apache-2.0, the Rust Project Developers,
- the GNU C Library, LGPL-2.1-or-later, of Debian's package libc6-dev, whose source Debian publishes
  (https://sources.debian.org/src/glibc). To link portwatch with another version of it, build it as
  docs/building.md says,
- libgcc, GPL-3.0-or-later with the GCC Runtime Library Exception.
";

/// Texts that Debian has on every system, and what they are of.
const DEBIANS: [(&str, &str); 3] = [
    ("the GNU C Library", "/usr/share/common-licenses/LGPL-2.1"),
    ("libgcc", "/usr/share/common-licenses/GPL-3"),
    ("the exception of libgcc", "/usr/share/doc/gcc-VERSION-base/copyright"),
];

/// A library: its name and version, and the expression of its licence.
type Library = (String, String);

/// Returns the text: the libraries, then each licence once with the libraries that it is of.
pub fn text() -> anyhow::Result<String> {
    let mut libraries: BTreeMap<Library, PathBuf> = BTreeMap::new();
    for arch in Arch::ALL {
        libraries.append(&mut linked(&root().join("portwatch"), arch.facts().target)?);
    }
    libraries.append(&mut linked(&root().join("portwatch-ebpf"), "all")?);
    let apache = fs::read_to_string(root().join("LICENSE-APACHE"))?.trim().to_owned();
    let mut text = HEAD.to_owned();
    let mut texts: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    writeln!(text, "\n{} libraries:", libraries.len())?;
    for ((name, licence), folder) in &libraries {
        writeln!(text, "  {name}: {licence}")?;
        let mut found = licences(folder)?;
        if found.is_empty() {
            // Some come without a text. That of Apache-2.0 is the same for all.
            ensure!(licence.contains("Apache-2.0"), "{name}: {licence}, without its text");
            found.push(apache.clone());
        }
        for one in found {
            texts.entry(one).or_default().insert(name);
        }
    }
    texts.entry(apache).or_default().insert("the Rust standard library");
    let gcc = quietly(Command::new("gcc").arg("-dumpversion"))?;
    for (of, path) in DEBIANS {
        let path = path.replace("VERSION", gcc.trim());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        texts.entry(text.trim_end().to_owned()).or_default().insert(of);
    }
    let mut texts: Vec<_> = texts.into_iter().map(|(one, of)| (of, one)).collect();
    texts.sort();
    for (of, one) in texts {
        let of = of.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(text, "\n{}\nOf {of}:\n\n{one}", "=".repeat(80))?;
    }
    Ok(text)
}

/// The libraries that are linked into a package, and their directories.
fn linked(package: &Path, target: &str) -> anyhow::Result<BTreeMap<Library, PathBuf>> {
    // Their directories are in the metadata, which does not say what is linked.
    let metadata =
        quietly(cargo().args(["metadata", "--format-version=1", "--locked"]).current_dir(package))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let packages = packages.context("no packages in cargo's metadata")?;
    let folder = |name: &str, version: &str| {
        let package = packages.iter().find(|it| {
            let is = |field, value| it.get(field).and_then(Value::as_str) == Some(value);
            is("name", name) && is("version", version)
        })?;
        Path::new(package.get("manifest_path")?.as_str()?).parent().map(Path::to_owned)
    };
    let tree = quietly(
        cargo()
            .args(["tree", "--locked", "--edges=normal,no-proc-macro", "--prefix=none"])
            .args(["--no-dedupe", "--format={p}|{l}", "--target", target])
            .current_dir(package),
    )?;
    let mut found = BTreeMap::new();
    for line in tree.lines() {
        let (package, licence) = line.split_once('|').context("cargo tree names no licence")?;
        let mut words = package.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // Ours are in the head.
        if name.starts_with("portwatch") {
            continue;
        }
        let version = version.trim_start_matches('v');
        let folder =
            folder(name, version).with_context(|| format!("cargo metadata has no {package}"))?;
        found.insert((format!("{name} {version}"), licence.to_owned()), folder);
    }
    Ok(found)
}

/// The texts beside a library's manifest.
fn licences(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_licence = ["licen", "copying", "unlicense", "notice", "copyright"]
            .iter()
            .any(|head| name.starts_with(head));
        if is_licence && path.is_file() {
            texts.push(
                String::from_utf8_lossy(&fs::read(&path)?).replace('\r', "").trim().to_owned(),
            );
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_is_there_with_a_text() {
        let text = text().unwrap();
        for library in [
            "  aya 0.",
            "  aya-ebpf 0.",
            "  tokio 1.",
            "the GNU C Library",
            "  zstd-sys 2.",
            "the exception of libgcc",
        ] {
            assert!(text.contains(library), "{library}");
        }
        // Compiles others, and is not in the binary.
        assert!(!text.contains("serde_derive"));
        let of: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("Of ")?.strip_suffix(':'))
            .flat_map(|names| names.split(", "))
            .collect();
        let listed = text.lines().skip_while(|line| !line.ends_with(" libraries:")).skip(1);
        for line in listed.take_while(|line| !line.is_empty()) {
            let (name, _) = line.trim().split_once(": ").unwrap();
            assert!(of.contains(name), "{name} has no text");
        }
    }
}
