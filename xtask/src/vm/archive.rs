//! Builds an initramfs (cpio, "newc").

use std::{fs, io::Write, path::Path};

use anyhow::Context as _;
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::vm::modules;

pub struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, inode: 1 }
    }

    pub fn folder(&mut self, name: &str) -> anyhow::Result<()> {
        self.entry(name, ModeFileType::Directory, 0o755, &[])
    }

    pub fn link(&mut self, name: &str, to: &str) -> anyhow::Result<()> {
        self.entry(name, ModeFileType::Symlink, 0o777, to.as_bytes())
    }

    pub fn file(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.entry(name, ModeFileType::Regular, 0o755, bytes)
    }

    pub fn copy(&mut self, name: &str, from: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
        self.file(name, &bytes)
    }

    /// Adds busybox under these names.
    pub fn busybox(&mut self, busybox: &Path, applets: &[&str]) -> anyhow::Result<()> {
        self.copy("bin/busybox", busybox)?;
        applets.iter().try_for_each(|applet| self.link(&format!("bin/{applet}"), "busybox"))
    }

    /// Adds kernel modules, in `modules`. The shell loads them in the order of their names.
    pub fn modules(&mut self, folder: &Path, wanted: &[&str]) -> anyhow::Result<()> {
        for (place, module) in modules::needed(folder, wanted)?.into_iter().enumerate() {
            self.file(&format!("modules/{place:02}-{}.ko", module.name), &module.bytes)?;
        }
        Ok(())
    }

    pub fn finish(self) -> anyhow::Result<()> {
        Ok(trailer(self.out)?.flush()?)
    }

    fn entry(
        &mut self,
        name: &str,
        kind: ModeFileType,
        mode: u32,
        bytes: &[u8],
    ) -> anyhow::Result<()> {
        self.inode += 1;
        let size = u32::try_from(bytes.len()).context("a file of 4 GiB")?;
        let mut entry = Builder::new(name)
            .ino(self.inode)
            .mode(mode)
            .set_mode_file_type(kind)
            .write(&mut self.out, size);
        entry.write_all(bytes)?;
        entry.finish()?;
        Ok(())
    }
}
