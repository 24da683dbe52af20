//! A container image with a layer for each architecture: the binary and its licences, nothing else
//! (OCI image specification 1.1: image-layout.md, manifest.md, config.md).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    VERSION,
    commit::Commit,
    tree::{Tree, files, gzip, tar},
};
use crate::{arch::Arch, fresh, quietly};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What refers to a stored content (descriptor.md).
type Descriptor = serde_json::Map<String, Value>;

/// What is in the image. The entry point is the binary, so that `podman run IMAGE doctor` works.
const FILES: [&str; 5] = [
    "usr/bin/portwatch",
    "usr/share/doc/portwatch/LICENSE-APACHE",
    "usr/share/doc/portwatch/LICENSE-GPL-2.0",
    "usr/share/doc/portwatch/LICENSE-MIT",
    "usr/share/doc/portwatch/THIRD-PARTY.txt",
];

/// An image layout that is being written.
pub struct Image<'a> {
    folder: PathBuf,
    commit: &'a Commit,
    manifests: Vec<Descriptor>,
}

impl<'a> Image<'a> {
    /// Begins one in a directory, which it replaces.
    pub fn new(folder: &Path, commit: &'a Commit) -> anyhow::Result<Self> {
        fresh(folder)?;
        fs::create_dir_all(folder.join("blobs/sha256"))?;
        Ok(Self { folder: folder.to_owned(), commit, manifests: Vec::new() })
    }

    /// Adds an architecture.
    pub fn add(&mut self, arch: Arch, tree: &Tree) -> anyhow::Result<()> {
        let root = self.folder.join("root");
        fresh(&root)?;
        for file in FILES {
            let to = root.join(file);
            fs::create_dir_all(to.parent().context("a file in a directory")?)?;
            fs::copy(tree.file(file), to)?;
        }
        let layer = self.folder.join("layer.tar");
        tar(&root, &files(&root, Path::new(""))?, self.commit.time, &layer, "--mode=u+w")?;
        let uncompressed = digest(&layer)?;
        quietly(gzip().arg(&layer))?;
        let compressed = self.folder.join("layer.tar.gz");
        let layer = self.blob(LAYER, &fs::read(&compressed)?)?;
        fs::remove_file(&compressed)?;
        fs::remove_dir_all(&root)?;
        let config = json!({
            "created": self.commit.date,
            "architecture": arch.facts().debian,
            "os": "linux",
            "config": {
                "Entrypoint": ["/usr/bin/portwatch"],
                "Cmd": ["run", "--format", "json"],
                "Labels": self.annotations(),
            },
            "rootfs": { "type": "layers", "diff_ids": [uncompressed] },
        });
        let config = self.blob(CONFIG, &serde_json::to_vec(&config)?)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": self.annotations(),
        });
        let mut manifest = self.blob(MANIFEST, &serde_json::to_vec(&manifest)?)?;
        let platform = json!({ "architecture": arch.facts().debian, "os": "linux" });
        manifest.insert("platform".to_owned(), platform);
        self.manifests.push(manifest);
        Ok(())
    }

    /// Writes the layout as one archive.
    pub fn finish(mut self, into: &Path) -> anyhow::Result<()> {
        let manifests = std::mem::take(&mut self.manifests);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": manifests,
            "annotations": self.annotations(),
        });
        let mut index = self.blob(INDEX, &serde_json::to_vec(&index)?)?;
        let name = json!({ "org.opencontainers.image.ref.name": format!("portwatch:{VERSION}") });
        index.insert("annotations".to_owned(), name);
        let layout = json!({ "imageLayoutVersion": "1.0.0" });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [index] });
        fs::write(self.folder.join("oci-layout"), serde_json::to_vec(&layout)?)?;
        fs::write(self.folder.join("index.json"), serde_json::to_vec(&index)?)?;
        let archive = into.join(format!("portwatch-{VERSION}-oci.tar"));
        let files = files(&self.folder, Path::new(""))?;
        tar(&self.folder, &files, self.commit.time, &archive, "--mode=a=r,u+w")
    }

    fn annotations(&self) -> Value {
        json!({
            "org.opencontainers.image.title": "portwatch",
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.revision": self.commit.hash,
            "org.opencontainers.image.source": "https://github.com/portwatch/portwatch",
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        })
    }

    /// Stores some content, and returns its descriptor.
    fn blob(&self, kind: &str, content: &[u8]) -> anyhow::Result<Descriptor> {
        let new = self.folder.join("blobs/new");
        fs::write(&new, content)?;
        let digest = digest(&new)?;
        fs::rename(&new, self.folder.join("blobs").join(digest.replace(':', "/")))?;
        Ok(Descriptor::from_iter([
            ("mediaType".to_owned(), kind.into()),
            ("digest".to_owned(), digest.into()),
            ("size".to_owned(), content.len().into()),
        ]))
    }
}

fn digest(file: &Path) -> anyhow::Result<String> {
    let said = quietly(Command::new("sha256sum").arg("--").arg(file))?;
    let sum = said.split_whitespace().next().context("sha256sum printed no checksum")?;
    Ok(format!("sha256:{sum}"))
}
