//! Finds a way to build the kernel side: a Rust compiler that has `core` for
//! `bpfel-unknown-none`, and bpf-linker. Shared by the build script and xtask.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The toolchain of rustup that builds the kernel side where no package has `core` for it.
/// Not pinned to a day: its LLVM must be the one that bpf-linker expects.
pub const NIGHTLY: &str = "nightly";
/// The target of the kernel side.
pub const TARGET: &str = "bpfel-unknown-none";

/// A cargo that can build for [`TARGET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A rustc with `core` precompiled for the target, as Debian packages it.
    Precompiled {
        /// The matching cargo.
        cargo: PathBuf,
        /// The rustc.
        rustc: PathBuf,
    },
    /// rustup's nightly with rust-src, which compiles `core` itself.
    Nightly,
}

/// The programs that a build needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The directory of bpf-linker.
    pub linker_dir: PathBuf,
}

/// Returns the toolchain, or what is missing, as text without advice.
pub fn find() -> Result<Toolchain, String> {
    let compiler = find_compiler().ok_or_else(|| {
        format!("no Rust compiler with core for {TARGET}, and no nightly with rust-src")
    })?;
    let linker_dir = find_linker().ok_or("no bpf-linker")?;
    Ok(Toolchain { compiler, linker_dir })
}

/// Returns the compiler, packaged ones first: they have `core` precompiled.
pub fn find_compiler() -> Option<Compiler> {
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    if cargo.exists() && has_core(&rustc) {
        return Some(Compiler::Precompiled { cargo, rustc });
    }
    has_nightly_source().then_some(Compiler::Nightly)
}

/// Returns the directory of bpf-linker: on PATH, or where cargo installs programs.
pub fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .find(|dir| dir.join("bpf-linker").is_file())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// Returns `FROM=TO` for each directory of sources: its path, and its name in what is built from
/// it, which is then the same wherever it was built. Directories of registries are named after the
/// mirror.
pub fn renamed(root: &Path) -> Vec<String> {
    let mut renamed = vec![format!("{}=/portwatch", root.display())];
    let registries = cargo_home().map(|home| home.join("registry/src"));
    let registries = registries.and_then(|folder| fs::read_dir(folder).ok());
    for registry in registries.into_iter().flatten().flatten() {
        renamed.push(format!("{}=/crates", registry.path().display()));
    }
    renamed
}

fn has_core(rustc: &Path) -> bool {
    sysroot(Command::new(rustc))
        .is_some_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir())
}

fn has_nightly_source() -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", NIGHTLY, "rustc"]);
    sysroot(rustc).is_some_and(|sysroot| {
        sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
    })
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let output = without_outer_cargo(&mut rustc).args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim()))
}

/// Removes the variables of an outer cargo: an inner one must not use its compiler, flags and
/// wrappers (for example clippy's).
pub fn without_outer_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let outer = matches!(
            name,
            "RUSTC"
                | "RUSTDOC"
                | "RUSTFLAGS"
                | "CARGO"
                | "RUSTUP_TOOLCHAIN"
                | "RUSTC_WRAPPER"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "CARGO_ENCODED_RUSTFLAGS"
                | "CARGO_BUILD_TARGET"
                | "CARGO_TARGET_DIR"
        ) || name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_FEATURE_")
            || name.starts_with("CARGO_PROFILE_")
            || name.starts_with("CLIPPY_");
        if outer {
            command.env_remove(name);
        }
    }
    command
}

impl Toolchain {
    /// The command that builds the package in `folder` into `target_dir`.
    pub fn build(&self, folder: &Path, target_dir: &Path) -> Command {
        let mut command = match &self.compiler {
            Compiler::Precompiled { cargo, rustc } => {
                let mut command = Command::new(cargo);
                without_outer_cargo(&mut command).env("RUSTC", rustc);
                // aya-ebpf uses feature(asm_experimental_arch).
                command.env("RUSTC_BOOTSTRAP", "1").arg("build");
                command
            }
            Compiler::Nightly => {
                let mut command = Command::new("rustup");
                without_outer_cargo(&mut command);
                command.args(["run", NIGHTLY, "cargo", "build", "-Z", "build-std=core"]);
                command
            }
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(
            std::iter::once(self.linker_dir.clone()).chain(env::split_paths(&path)),
        )
        .unwrap_or(path);
        let mut flags = vec!["-Clink-arg=--btf".to_owned(), "-Cdebuginfo=2".to_owned()];
        let renamed = renamed(folder.parent().unwrap_or(folder));
        flags.extend(renamed.iter().map(|renamed| format!("--remap-path-prefix={renamed}")));
        command
            .env("PATH", path)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(target_dir)
            .current_dir(folder);
        command
    }
}
