//! Finds the programs that the tests run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The `portwatch` binary: `PORTWATCH_BIN`, or the one that was built last in the tests'
/// directory or in the workspace's target directory.
pub fn portwatch() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("PORTWATCH_BIN") {
        return Ok(PathBuf::from(path));
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let beside_tests = build_folder().join("portwatch");
    [beside_tests, target.join("debug/portwatch"), target.join("release/portwatch")]
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| {
            anyhow::anyhow!("portwatch is not built: run `cargo xtask test`, or set PORTWATCH_BIN")
        })
}

/// The helper program: `BINDER_BIN`, or the one that was built with the tests.
#[must_use]
pub fn binder() -> PathBuf {
    env::var_os("BINDER_BIN").map_or_else(|| build_folder().join("binder"), PathBuf::from)
}

/// A shell that starts the helper with these operations again whenever it has exited.
#[must_use]
pub fn shell_loop(operations: &str) -> Command {
    let script = format!("while sleep 0.01; do {} {operations}; done", binder().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    shell
}

/// Where Cargo puts a package's programs; its tests are in `deps` below.
fn build_folder() -> PathBuf {
    let this = env::current_exe().expect("/proc is mounted");
    let deps = this.parent().expect("a program is in a folder");
    deps.parent().unwrap_or(deps).to_owned()
}

/// A Debian package's program, if it is installed.
#[must_use]
pub fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

/// The helper program under another path, as another program. A link, because a file that is
/// still open for writing somewhere cannot be executed.
pub struct Alias {
    _folder: TempDir,
    /// Its path.
    pub path: PathBuf,
}

impl Alias {
    /// The helper as `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let binder = binder();
        let folder = tempfile::Builder::new()
            .prefix("portwatch-test-")
            .tempdir_in(binder.parent().expect("a program is in a folder"))
            .expect("the build folder is writable");
        let path = folder.path().join(name);
        fs::hard_link(&binder, &path).expect("the helper can be linked to");
        Self { _folder: folder, path }
    }
}

/// Makes a service directory of runit below `folder`, in which the helper listens at `address`.
#[must_use]
pub fn runit_service(folder: &Path, address: &str) -> PathBuf {
    let service = folder.join("web");
    std::fs::create_dir(&service).unwrap();
    let run = format!("#!/bin/sh\nexec {} tcp/{address}/listen hold\n", binder().display());
    std::fs::write(service.join("run"), run).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(service.join("run"), mode).unwrap();
    service
}
