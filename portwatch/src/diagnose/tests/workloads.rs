//! Containers and pods: who is named, and what is to be pasted.

use super::{
    responsibility::{ends, first},
    *,
};
use crate::evidence::{Engine, Pod, Voucher, Workload};

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
        "runuser -u deploy -- docker -H unix:///run/user/1004/docker.sock stop web"
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

/// A user's own engine is asked as that user. What serves all containers of an engine, or another
/// one's, is not to be ended.
#[test]
fn a_users_proxy_is_asked_about_as_that_user() {
    let cgroup = "/user.slice/user-1004.slice/user@1004.service/user.slice/podman-7.scope";
    for (comm, argument, dedicated) in [
        ("rootlessport", "rootlessport", true),
        ("exe", "containers-rootlessport", true),
        ("pasta", "pasta", false),
        ("pasta.avx2", "pasta", false),
        ("slirp4netns", "slirp4netns", false),
    ] {
        let mut proxy = java(2219, "0", cgroup, "2026-06-01T00:00:00Z");
        (proxy.comm, proxy.exe) = (Some(comm.to_owned()), Some(format!("/usr/bin/{argument}")));
        proxy.cmdline = vec![argument.to_owned()].into();
        (proxy.vouched_by, proxy.unit_owner) = (Some(Voucher::User), Some(1004));
        let evidence = listener(proxy);
        assert_eq!(class(&evidence), HolderClass::ContainerProxy, "{comm}");
        let list = "runuser -u deploy -- env -C / XDG_RUNTIME_DIR=/run/user/1004 podman ps -a";
        assert_eq!(first(&evidence).0, list, "{comm}");
        let ended: &[&str] = if dedicated { &["kill 2219"] } else { &[] };
        assert_eq!(ends(&evidence), ended, "{comm}");
    }
}

/// Its engine has said that no container has published the port.
#[test]
fn a_daemon_of_all_containers_is_not_left_over() {
    let mut daemon = java(2219, "0", "/system.slice/docker.service", "2026-06-01T00:00:00Z");
    (daemon.comm, daemon.exe) = (Some("dockerd".to_owned()), Some("/usr/bin/dockerd".to_owned()));
    daemon.cmdline = ["dockerd", "-H", "tcp://0.0.0.0:8080"].map(str::to_owned).to_vec().into();
    (daemon.vouched_by, daemon.uid, daemon.left_over) = (Some(Voucher::Root), Some(0), true);
    let evidence = listener(daemon);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.holder.unwrap().class, HolderClass::ContainerProxy);
    assert_eq!(diagnosis.judgement.unwrap().safe_to_stop, SafeToStop::No);
    assert!(diagnosis.summary.contains("has ports open for containers"), "{}", diagnosis.summary);
    assert_eq!(first(&evidence).0, "docker ps --filter publish=8080/tcp");
    assert!(diagnosis.moves[1].why.starts_with("if that shows none, move app.service to another"));
    assert_eq!(ends(&evidence), [""; 0]);
}

/// Incus and LXD start a helper for each proxy device.
#[test]
fn a_proxy_device_is_removed_from_its_instance() {
    let mut proxy = java(2219, "0", "/system.slice/incus.service", "2026-06-01T00:00:00Z");
    (proxy.comm, proxy.exe) = (Some("incusd".to_owned()), Some("/opt/incus/bin/incusd".to_owned()));
    (proxy.vouched_by, proxy.uid) = (Some(Voucher::Root), Some(0));
    let mut evidence = listener(proxy);
    for (line, expected) in [
        ("/opt/incus/bin/incusd forkproxy -- 1 tcp:0.0.0.0:8080", HolderClass::ContainerProxy),
        ("/opt/incus/bin/incusd --group incus", HolderClass::OtherService),
    ] {
        evidence.sockets[0].holders[0].cmdline = line.split(' ').map(str::to_owned).collect();
        assert_eq!(class(&evidence), expected, "{line}");
        let (command, why) = first(&evidence);
        if expected == HolderClass::ContainerProxy {
            let list = "for name in $(incus list -f csv -c n); do incus config device show $name | \
                        grep -q ':8080$' && echo $name; done";
            assert_eq!(command, list);
            assert!(why.contains("incus config device remove INSTANCE DEVICE"), "{why}");
        } else {
            assert!(why.starts_with("move app.service or incus.service to another port"), "{why}");
        }
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

/// In a container a process may have a subordinate id, which has no name. Root must not use what the
/// user has put into its runtime directory.
#[test]
fn a_users_engine_is_asked_as_that_user_by_number() {
    let users = "user.slice/user-1004.slice/user@1004.service/user.slice";
    let as_number = "setpriv --reuid=1004 --regid=1004 --clear-groups --reset-env --";
    for (kind, engine, command) in [
        ("docker", Engine::Docker, "docker -H unix:///run/user/1004/docker.sock stop web"),
        ("libpod", Engine::Podman, "env -C / XDG_RUNTIME_DIR=/run/user/1004 podman stop web"),
    ] {
        let known = workload(engine, Some("web"));
        let mut evidence = in_container(&format!("{users}/{kind}-"), known);
        let holder = &mut evidence.sockets[0].holders[0];
        (holder.uid, holder.user) = (Some(100_006), None);
        let expected = format!("{as_number} {command}");
        assert_eq!(diagnose(&evidence).moves[0].command, Some(expected), "{kind}");
        // Another user's name is not that user's.
        evidence.sockets[0].holders[0].user = Some("mallory".to_owned());
        let expected = format!("{as_number} {command}");
        assert_eq!(diagnose(&evidence).moves[0].command, Some(expected), "{kind}");
    }
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
            "runuser -u deploy -- docker -H unix:///run/user/1004/docker.sock stop 9f81c2e4a77b",
        ),
        (
            &format!("{users}/libpod-"),
            "",
            "runuser -u deploy -- env -C / XDG_RUNTIME_DIR=/run/user/1004 podman stop 9f81c2e4a77b",
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
