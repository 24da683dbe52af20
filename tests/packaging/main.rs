//! The packaged files match the program: the unit and the manifest use existing options, and
//! the same capabilities.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic fails the test and says where"
)]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use serde_json::Value;

fn packaging(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging").join(name)
}

fn unit(setting: &str) -> String {
    let text = fs::read_to_string(packaging("portwatch.service")).unwrap();
    let head = format!("{setting}=");
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&head)).collect();
    assert_eq!(lines.len(), 1, "{setting} is given once");
    lines[0].to_owned()
}

fn manifest() -> Value {
    let text = fs::read_to_string(packaging("kubernetes/daemonset.yaml")).unwrap();
    serde_saphyr::from_str(&text).expect("the manifest is YAML")
}

fn words(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

#[track_caller]
fn is_understood(command: &[String]) {
    assert_eq!(command[0], "/usr/bin/portwatch");
    let parsed = portwatch::cli::command().try_get_matches_from(command);
    assert!(parsed.is_ok(), "{command:?}: {}", parsed.unwrap_err());
}

#[test]
fn both_run_what_the_command_line_takes() {
    let command: Vec<_> = unit("ExecStart").split(' ').map(str::to_owned).collect();
    is_understood(&command);
    let pod = &manifest()["spec"]["template"]["spec"];
    let command = pod["containers"][0]["command"].as_array().unwrap().iter();
    is_understood(&command.map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>());
}

/// The pod has the capabilities that the service was measured to need.
#[test]
fn both_have_the_same_capabilities() {
    let unit: BTreeSet<_> = unit("CapabilityBoundingSet")
        .split(' ')
        .map(|name| name.strip_prefix("CAP_").unwrap().to_owned())
        .collect();
    let pod = &manifest()["spec"]["template"]["spec"];
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(words(&security["capabilities"]["add"]), unit);
    assert_eq!(words(&security["capabilities"]["drop"]), BTreeSet::from(["ALL".to_owned()]));
}

#[test]
fn the_pod_sees_the_node_and_changes_nothing_of_it() {
    let manifest = manifest();
    assert_eq!(
        (&manifest["apiVersion"], &manifest["kind"]),
        (&"apps/v1".into(), &"DaemonSet".into())
    );
    let spec = &manifest["spec"];
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(&spec["selector"]["matchLabels"], labels);
    let pod = &spec["template"]["spec"];
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&true.into(), &true.into()));
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["privileged"], Value::Null);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    let volumes = pod["volumes"].as_array().unwrap();
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert_eq!(volumes.len(), mounts.len());
    for mount in mounts {
        assert_eq!(mount["readOnly"], true, "{mount}");
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
}

/// `systemd-analyze` rates the exposure of the unit, from 0 to 10.
#[test]
fn the_unit_is_confined() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=yes", "--no-pager", "--threshold=25"]);
    let output =
        command.arg(packaging("portwatch.service")).output().expect("systemd is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
