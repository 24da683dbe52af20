//! Bills of materials (CycloneDX): what the binary of each architecture consists of, and the eBPF
//! object in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{VERSION, commit::Commit};
use crate::{arch::Arch, cargo, checked, cross, quietly, root};

/// Writes a bill for each binary, and one for the object, which is the same for all.
pub fn write(arches: &[Arch], commit: &Commit, out: &Path) -> anyhow::Result<()> {
    for arch in arches {
        let facts = arch.facts();
        let mut bill = crates("portwatch", facts.target, commit)?;
        let components = bill.get_mut("components").and_then(Value::as_array_mut);
        components.context("a bill without components")?.extend(libraries(*arch)?);
        save(out, &format!("portwatch-{VERSION}-{}", facts.debian), &bill)?;
    }
    // Its target is of a nightly compiler; nothing in it depends on one.
    let bill = crates("portwatch-ebpf", "all", commit)?;
    save(out, &format!("portwatch-ebpf-{VERSION}"), &bill)
}

fn save(out: &Path, name: &str, bill: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(bill)?;
    fs::write(out.join(format!("{name}.cdx.json")), text)?;
    Ok(())
}

/// The crates that are linked into a package.
fn crates(package: &str, target: &str, commit: &Commit) -> anyhow::Result<Value> {
    let name = format!("bill-of-{package}");
    // It writes a file beside the manifest of each package of the workspace.
    let beside = |package: &str| root().join(package).join(format!("{name}.json"));
    let _removed = Removed(
        ["portwatch", "portwatch-common", "portwatch-ebpf", "tests", "xtask"].map(beside).to_vec(),
    );
    checked(
        cargo()
            .args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5"])
            .args(["--no-build-deps", "--target", target, "--override-filename", &name])
            .arg("--manifest-path")
            .arg(root().join(package).join("Cargo.toml"))
            .env("SOURCE_DATE_EPOCH", commit.time.to_string()),
    )?;
    let bill = fs::read_to_string(beside(package))
        .with_context(|| format!("no bill of materials of {package}"))?;
    // Its references to our own packages have the path of this checkout.
    let bill = bill.replace(&format!("file://{}", root().display()), "file:///portwatch");
    Ok(serde_json::from_str(&bill)?)
}

/// What is linked in besides crates: Rust's standard library, glibc and libgcc.
fn libraries(arch: Arch) -> anyhow::Result<[Value; 3]> {
    let facts = arch.facts();
    let rust = quietly(Command::new(cross::rustc(arch)).arg("--version"))?;
    let rust = rust.split(' ').nth(1).context("rustc --version printed no version")?;
    let package = if arch.is_native() {
        "libc6-dev".to_owned()
    } else {
        format!("libc6-dev-{}-cross", facts.debian)
    };
    let glibc = quietly(Command::new("dpkg-query").args(["-W", "-f=${Version}", &package]))?;
    let gcc = quietly(Command::new(format!("{}-gcc", facts.gnu)).arg("-dumpfullversion"))?;
    let library = |name: &str, version: &str, licence: &str| {
        json!({
            "type": "library",
            "bom-ref": format!("{name}@{version}"),
            "name": name,
            "version": version,
            "scope": "required",
            "licenses": [{ "expression": licence }],
        })
    };
    Ok([
        library("rust-std", rust, "MIT OR Apache-2.0"),
        library("glibc", &glibc, "LGPL-2.1-or-later"),
        library("libgcc", gcc.trim(), "GPL-3.0-or-later WITH GCC-exception-3.1"),
    ])
}

/// Files that are removed at the end, after an error too.
struct Removed(Vec<PathBuf>);

impl Drop for Removed {
    fn drop(&mut self) {
        for file in &self.0 {
            fs::remove_file(file).ok();
        }
    }
}
