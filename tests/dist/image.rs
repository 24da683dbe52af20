//! The container image: its index, and a real start of it by Podman.

use std::{fs, net::TcpListener, path::Path, process::Command};

use portwatch_tests::skip::skip;
use serde_json::{Value, json};

use super::{arches, dist, file, output, own, run};

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_index_has_each_architecture_with_one_layer() {
    let Some(dist) = dist() else { return };
    let root = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("-xf").arg(file(&dist, "-oci.tar")).arg("-C").arg(root.path()));
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        let path = root.path().join("blobs").join(digest);
        assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
        path
    };
    let outer = read(&root.path().join("index.json"));
    let index = read(&blob(&outer["manifests"][0]));
    let manifests = index["manifests"].as_array().unwrap();
    let found: Vec<_> =
        manifests.iter().map(|it| it["platform"]["architecture"].as_str().unwrap()).collect();
    assert_eq!(found, arches(&dist).iter().map(|(debian, _)| *debian).collect::<Vec<_>>());
    for descriptor in manifests {
        let manifest = read(&blob(descriptor));
        let config = read(&blob(&manifest["config"]));
        assert_eq!(config["architecture"], descriptor["platform"]["architecture"]);
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/portwatch"]));
        assert_eq!(config["config"]["Cmd"], json!(["run", "--format", "json"]));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        let list = run(Command::new("tar").arg("-tzf").arg(blob(&layers[0])));
        assert!(list.lines().any(|line| line == "usr/bin/portwatch"), "{list}");
        assert!(list.lines().count() <= 5, "{list}");
    }
}

/// Podman with a storage of its own.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.folder.path().join("root"));
        command.arg("--runroot").arg(self.folder.path().join("run"));
        command.arg("--tmpdir").arg(self.folder.path().join("tmp"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]).args(args);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Nothing stays mounted that would keep the directory from being removed. `system reset`
        // would also remove what is outside of it: networks and state of this machine's Podman.
        for what in ["rm", "rmi"] {
            self.command(&[what, "--all", "--force"]).output().ok();
        }
    }
}

#[test]
fn the_image_is_loaded_and_started() {
    let Some(dist) = dist() else { return };
    if own(&dist).is_none() {
        return skip("dist", "a binary for this machine");
    }
    let podman = Podman { folder: tempfile::tempdir().unwrap() };
    let archive = file(&dist, "-oci.tar");
    let loaded = run(&mut podman.command(&["load", "--input", archive.to_str().unwrap()]));
    let image = loaded.trim().rsplit(' ').next().unwrap().to_owned();
    let start = |options: &[&str], args: &[&str]| {
        let mut all = vec!["run", "--rm", "--network=host", "--read-only"];
        // A machine may refuse the limits that Podman would set.
        all.extend(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]);
        all.extend(options);
        all.push(&image);
        all.extend(args);
        output(&mut podman.command(&all))
    };
    let version = start(&[], &["--version"]);
    assert!(version.status.success(), "{version:?}");
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("portwatch "));
    // Without rights it reports all that is missing.
    let doctor = start(&[], &["doctor", "--json"]);
    let report: Value =
        serde_json::from_slice(&doctor.stdout).unwrap_or_else(|_| panic!("{doctor:?}"));
    assert!(!report["missing_capabilities"].as_array().unwrap().is_empty(), "{report}");
    // With the rights and the view of the node, as in packaging/kubernetes, it finds the holder.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let explained = start(
        &["--privileged", "--pid=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:ro"],
        &["explain", &port, "--format", "json"],
    );
    assert_eq!(explained.status.code(), Some(3), "{explained:?}");
    let answer: Value = serde_json::from_slice(&explained.stdout).unwrap();
    let text = answer.to_string();
    assert!(text.contains(&format!("\"pid\":{}", std::process::id())), "{text}");
}
