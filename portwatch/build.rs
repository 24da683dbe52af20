//! Builds the kernel side, compresses it and the schemas, and embeds them.
//! `PORTWATCH_EBPF_OBJECT` names a prebuilt object instead, for packagers who build it once.

#![allow(clippy::print_stdout, reason = "cargo reads it")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[path = "build/strip.rs"]
mod strip;
#[path = "build/toolchain.rs"]
#[allow(dead_code, reason = "xtask uses the rest of the module")]
mod toolchain;

fn main() -> ExitCode {
    match schemas().and_then(|()| object()).and_then(|object| compress(&object, OBJECT)) {
        Ok(path) => {
            println!("cargo::rustc-env=PORTWATCH_EBPF_OBJECT_PATH={}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            for line in error.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The level that makes it smallest without more memory to decompress it.
const LEVEL: i32 = 19;

/// The name of the compressed object.
const OBJECT: &str = "portwatch-ebpf.o.zst";

/// Compresses the schemas that `portwatch schema` prints.
fn schemas() -> Result<(), String> {
    let docs = dir("CARGO_MANIFEST_DIR")?.join("../docs");
    for name in ["stream", "explanation", "action"] {
        let file = docs.join(format!("{name}.schema.json"));
        println!("cargo::rerun-if-changed={}", file.display());
        compress(&file, &format!("{name}.schema.json.zst"))?;
    }
    Ok(())
}

fn compress(file: &Path, name: &str) -> Result<PathBuf, String> {
    let failed = |error| format!("cannot compress {}: {error}", file.display());
    let compressed = fs::read(file).and_then(|bytes| zstd::bulk::compress(&bytes, LEVEL));
    let path = dir("OUT_DIR")?.join(name);
    fs::write(&path, compressed.map_err(failed)?).map_err(failed)?;
    Ok(path)
}

fn dir(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or(format!("no {name}"))
}

fn object() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=PORTWATCH_EBPF_OBJECT");
    if let Some(ready) = env::var_os("PORTWATCH_EBPF_OBJECT") {
        let ready = PathBuf::from(ready);
        println!("cargo::rerun-if-changed={}", ready.display());
        return match ready.is_file() {
            true => Ok(ready),
            false => Err(format!("PORTWATCH_EBPF_OBJECT: no file {}", ready.display())),
        };
    }
    let here = dir("CARGO_MANIFEST_DIR")?;
    let root = here.parent().unwrap_or(Path::new(".."));
    for source in [
        "portwatch-ebpf/src",
        "portwatch-ebpf/Cargo.toml",
        "portwatch-ebpf/Cargo.lock",
        "portwatch-common",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed=build");
    let toolchain = toolchain::find().map_err(|missing| {
        format!("{missing}, so the eBPF object cannot be built\nrun: cargo xtask setup")
    })?;
    let target_dir = dir("OUT_DIR")?.join("ebpf");
    let output = toolchain
        .build(&root.join("portwatch-ebpf"), &target_dir)
        .output()
        .map_err(|error| format!("cannot start the eBPF build: {error}"))?;
    if !output.status.success() {
        return Err(format!("the eBPF build failed\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let built = target_dir.join(toolchain::TARGET).join("release/portwatch-ebpf");
    let object = target_dir.join("portwatch-ebpf.o");
    strip::strip_debug_info(&built, &object)
        .map_err(|error| format!("cannot strip {}: {error}", built.display()))?;
    Ok(object)
}
