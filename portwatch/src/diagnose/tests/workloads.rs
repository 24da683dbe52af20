//! Containers and pods: who is named, and what is to be pasted.

use super::*;
use crate::evidence::{Engine, Pod, Workload};

fn workload(engine: Engine, name: Option<&str>) -> Workload {
    Workload {
        engine,
        id: Some("9f81c2e4a77b".repeat(6).get(..64).unwrap().to_owned()),
        name: name.map(str::to_owned),
        image: Some("app:1".to_owned()),
        pod: None,
        published: Some("0.0.0.0:8080->80/tcp".to_owned()),
    }
}

/// The first move against docker-proxy or the like of `uid`.
fn against_proxy(comm: &str, uid: u32, workload: Workload) -> String {
    let mut proxy = java(2219, "0", "/system.slice/docker.service", "2026-06-01T00:00:00Z");
    (proxy.comm, proxy.uid, proxy.workload) = (Some(comm.to_owned()), Some(uid), Some(workload));
    let diagnosis = diagnose(&listener(proxy));
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::ContainerProxy);
    diagnosis.moves[0].command.clone().unwrap()
}

#[test]
fn the_container_behind_a_proxy_is_named() {
    let mut proxy = java(2219, "0", "/system.slice/docker.service", "2026-06-01T00:00:00Z");
    proxy.comm = Some("docker-proxy".to_owned());
    proxy.uid = Some(0);
    proxy.workload = Some(workload(Engine::Docker, Some("web")));
    assert_json_snapshot!(diagnose(&listener(proxy)));
}

#[test]
fn each_engine_is_told_in_its_own_words() {
    let named = |engine| workload(engine, Some("web"));
    let docker = named(Engine::Docker);
    // Newer Dockers hold the port in the daemon.
    assert_eq!(against_proxy("dockerd", 0, docker.clone()), "docker stop web");
    assert_eq!(
        against_proxy("rootlesskit", 1004, docker),
        "docker -H unix:///run/user/1004/docker.sock stop web"
    );
    assert_eq!(against_proxy("conmon", 0, named(Engine::Podman)), "podman stop web");
    assert_eq!(
        against_proxy("rootlessport", 1004, named(Engine::Podman)),
        "runuser -u deploy -- env -C / XDG_RUNTIME_DIR=/run/user/1004 podman stop web"
    );
}

#[test]
fn a_name_that_is_not_one_is_not_pasted() {
    let long = "w".repeat(128);
    for name in [Some("-f"), Some("$(reboot)"), Some(long.as_str()), Some(""), None] {
        let command = against_proxy("docker-proxy", 0, workload(Engine::Docker, name));
        assert_eq!(command, "docker stop 9f81c2e4a77b", "{name:?}");
    }
}

/// A process in a container, of the host's network.
fn in_container(cgroup: &str, known: Workload) -> Evidence {
    let id = known.id.clone();
    let path = format!("/{cgroup}{}.scope", id.clone().unwrap());
    let mut holder = java(700, "0", &path, "2026-06-01T00:00:00Z");
    (holder.comm, holder.exe) = (Some("nginx".to_owned()), Some("/usr/sbin/nginx".to_owned()));
    (holder.cmdline, holder.unit, holder.container) = (Vec::new().into(), None, id);
    holder.workload = Some(Workload { published: None, ..known });
    listener(holder)
}

#[test]
fn a_container_is_stopped_by_its_name() {
    let evidence = in_container("system.slice/docker-", workload(Engine::Docker, Some("web")));
    assert_json_snapshot!(diagnose(&evidence));
    let evidence = in_container("docker/", workload(Engine::Docker, None));
    assert_eq!(diagnose(&evidence).moves[0].command.as_deref(), Some("docker stop 9f81c2e4a77b"));
}

/// Without an answer of an engine's, by the names of the groups above the container.
#[test]
fn without_its_engine_a_container_is_stopped_by_its_id() {
    let users = "user.slice/user-1004.slice/user@1004.service/user.slice";
    for (cgroup, below, expected) in [
        ("system.slice/docker-", "", "docker stop 9f81c2e4a77b"),
        ("system.slice/docker-", "/lxc/libpod", "docker stop 9f81c2e4a77b"),
        ("machine.slice/libpod-", "", "podman stop 9f81c2e4a77b"),
        ("kubepods.slice/crio-", "", "crictl stop 9f81c2e4a77b"),
        ("kubepods/besteffort/podx/", "", "crictl stop 9f81c2e4a77b"),
        ("docker/", "/kubepods", "docker stop 9f81c2e4a77b"),
        (
            &format!("{users}/docker-"),
            "",
            "docker -H unix:///run/user/1004/docker.sock stop 9f81c2e4a77b",
        ),
        (
            &format!("{users}/libpod-"),
            "",
            "podman --url unix:///run/user/1004/podman/podman.sock stop 9f81c2e4a77b",
        ),
    ] {
        let mut evidence = in_container(cgroup, workload(Engine::Docker, None));
        let holder = &mut evidence.sockets[0].holders[0];
        holder.workload = None;
        let path = holder.cgroup.as_mut().unwrap().path.as_mut().unwrap();
        path.push_str(below);
        assert_eq!(diagnose(&evidence).moves[0].command.as_deref(), Some(expected), "{cgroup}");
    }
    let mut evidence = in_container("", workload(Engine::Docker, None));
    let holder = &mut evidence.sockets[0].holders[0];
    (holder.workload, holder.container) = (None, Some("web".to_owned()));
    holder.cgroup.as_mut().unwrap().path = Some("/lxc.payload.web".to_owned());
    assert_eq!(diagnose(&evidence).moves[0].command.as_deref(), Some("lxc-info -n web"));
}

#[test]
fn a_pod_is_left_to_its_owner() {
    let mut known = workload(Engine::Containerd, Some("nginx"));
    known.pod = Some(Pod { namespace: "shop".to_owned(), name: "web-0".to_owned() });
    let evidence = in_container("kubepods.slice/cri-containerd-", known);
    assert_json_snapshot!(diagnose(&evidence));
}
