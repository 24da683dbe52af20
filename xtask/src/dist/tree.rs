//! The files of the package as they are on a system, and what else is made of them: a tarball and a
//! system extension.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{arch::Arch, fresh, quietly};

/// A system extension's description of itself (os-release(5), extension-release.d). It contains a
/// static binary and nothing of a distribution.
const EXTENSION: &str = "ID=_any\nARCHITECTURE=@ARCH@\nEXTENSION_RELOAD_MANAGER=1\n";

/// Starts the service as soon as the extension is there, which has no /etc to enable it in.
const UPHOLDS: &str = "[Unit]\nUpholds=portwatch.service\n";

/// An unpacked package.
pub struct Tree {
    folder: PathBuf,
    time: u64,
}

impl Tree {
    /// Unpacks a deb into a directory, which it replaces.
    pub fn unpack(deb: &Path, folder: &Path, time: u64) -> anyhow::Result<Self> {
        fresh(folder)?;
        quietly(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(folder))?;
        Ok(Self { folder: folder.to_owned(), time })
    }

    /// A file of the package.
    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Writes a tarball below `name/`. It has no directories, so that unpacking it as root leaves
    /// the owners and modes of those of the system.
    pub fn tarball(&self, name: &str, into: &Path) -> anyhow::Result<()> {
        let files = files(&self.folder, Path::new(""))?;
        let tarball = into.join(format!("{name}.tar.gz"));
        tar(&self.folder, &files, self.time, &tarball, &format!("--transform=s,^,{name}/,"))
    }

    /// Writes an image for systemd-sysext(8), and returns its path.
    pub fn extension(&self, arch: Arch, name: &str, into: &Path) -> anyhow::Result<PathBuf> {
        let mut folder = self.folder.clone().into_os_string();
        folder.push("-extension");
        let folder = PathBuf::from(folder);
        fresh(&folder)?;
        quietly(Command::new("cp").arg("--archive").arg(self.file("usr")).arg(&folder))?;
        for (path, text) in [
            (
                "usr/lib/extension-release.d/extension-release.portwatch",
                EXTENSION.replace("@ARCH@", arch.facts().systemd),
            ),
            ("usr/lib/systemd/system/multi-user.target.d/10-portwatch.conf", UPHOLDS.to_owned()),
        ] {
            let path = folder.join(path);
            let parent = path.parent().unwrap_or(&folder);
            fs::create_dir_all(parent)?;
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let (image, time) = (into.join(format!("{name}.raw")), self.time.to_string());
        quietly(
            Command::new("mksquashfs")
                .arg(&folder)
                .arg(&image)
                .args(["-noappend", "-all-root", "-no-xattrs", "-no-progress"])
                .args(["-mkfs-time", &time, "-all-time", &time])
                .env_remove("SOURCE_DATE_EPOCH"),
        )?;
        Ok(image)
    }
}

/// Returns a gzip that writes no names and times, whatever this machine's settings are.
pub fn gzip() -> Command {
    let mut gzip = Command::new("gzip");
    gzip.args(["--best", "--no-name"]).env_remove("GZIP");
    gzip
}

/// Writes some files of a directory as a tarball, compressed if its name says so.
pub fn tar(
    folder: &Path,
    files: &[PathBuf],
    time: u64,
    to: &Path,
    option: &str,
) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.env_remove("TAR_OPTIONS").env_remove("GZIP").env("LC_ALL", "C");
    if to.extension().is_some_and(|extension| extension == "gz") {
        tar.args(["--use-compress-program", "gzip --best --no-name"]);
    }
    tar.args(["--create", "--format=gnu", "--no-recursion", "--owner=0", "--group=0"])
        .args(["--numeric-owner", &format!("--mtime=@{time}"), option, "--file"])
        .arg(to)
        .arg("--directory")
        .arg(folder)
        .arg("--")
        .args(files);
    quietly(&mut tar)?;
    Ok(())
}

/// All files below a directory, sorted.
pub fn files(root: &Path, below: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut entries: Vec<_> = fs::read_dir(root.join(below))?
        .map(|entry| Ok(below.join(entry?.file_name())))
        .collect::<anyhow::Result<_>>()?;
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        if root.join(&path).is_dir() {
            found.extend(files(root, &path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
