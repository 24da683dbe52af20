//! What to do about containers and pods: through their own manager, by the name
//! that it knows them by.

use crate::{
    diagnose::{
        Move, Risk,
        moves::{command, quote},
        words,
    },
    evidence::{Cgroup, Engine, Process, Protocol, Workload},
};

/// Ends the container that `proxy` holds `port` for.
pub fn behind_proxy(proxy: &Process, port: u16, protocol: Protocol) -> Move {
    let known = proxy.workload.as_ref();
    let published = known.and_then(|workload| workload.published.clone());
    let holds = format!("{} only holds the port for it", words::process(proxy));
    // A proxy of root's serves root's engine, wherever root has started it.
    let user = match proxy.uid {
        Some(0) => None,
        uid => user_of(proxy).or(uid),
    };
    if let Some(workload) = known
        && let Some(stop) = stop_command(workload, user.map(|uid| (uid, proxy.user.as_deref())))
    {
        let label = words::workload(workload).unwrap_or_else(|| "a container".to_owned());
        let image =
            workload.image.as_deref().map(|image| format!(" ({image})")).unwrap_or_default();
        let published = published.unwrap_or_else(|| format!("port {port}"));
        return interrupts(stop, format!("{label}{image} has published {published}; {holds}"));
    }
    let published = published.map(|text| format!(" as {text}")).unwrap_or_default();
    let why = format!("a container has published the port{published}; {holds}");
    match known.map(|workload| workload.engine) {
        Some(Engine::Podman) => podman_list(port, why),
        None if is_podmans(proxy) => podman_list(port, why),
        _ => command(
            format!("docker ps --filter publish={port}/{protocol}"),
            format!("{why}; this shows which: then docker stop that one"),
            Risk::None,
        ),
    }
}

/// Podman has no filter by port.
fn podman_list(port: u16, why: String) -> Move {
    let why = format!("{why}; then podman stop that container");
    command(format!("podman ps | grep -w {port}"), why, Risk::None)
}

fn is_podmans(proxy: &Process) -> bool {
    let comm = proxy.comm.as_deref().unwrap_or_default();
    ["conmon", "rootlessport"].iter().any(|name| comm.starts_with(name))
}

/// Ends the container or pod that `holder` runs in, because of `why`; `None` if
/// it runs in none.
pub fn around(holder: &Process, why: &str) -> Option<Move> {
    let workload = holder.workload.as_ref();
    if let Some(pod) = workload.and_then(|workload| workload.pod.as_ref()) {
        let label = format!("pod {}/{}", pod.namespace, pod.name);
        return Some(command(
            format!(
                "kubectl -n {} get pod {} -o jsonpath='{{.metadata.ownerReferences[0].kind}}/\
                 {{.metadata.ownerReferences[0].name}}'",
                quote(&pod.namespace),
                quote(&pod.name)
            ),
            format!(
                "{why}; the owner of {label} would start it again: scale that down (of a \
                 ReplicaSet the Deployment above it), or give it the Recreate strategy"
            ),
            Risk::None,
        ));
    }
    if let Some(uid) = &holder.pod {
        return Some(command(
            format!(
                "kubectl get pods -A -o custom-columns=NS:.metadata.namespace,NAME:.metadata.name,\
                 UID:.metadata.uid | grep {}",
                quote(uid)
            ),
            format!(
                "{why}; this shows the pod; the kubelet starts again what is stopped on its node, \
                 so scale down the pod's owner"
            ),
            Risk::None,
        ));
    }
    let container = holder.container.as_ref()?;
    let user = user_of(holder).map(|uid| (uid, None));
    let path = holder.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
    // What is below the container's group has names that the container gives.
    let (above, _) = path.and_then(|path| path.split_once(container.as_str())).unwrap_or_default();
    let stop = workload.and_then(|workload| stop_command(workload, user)).or_else(|| {
        let engine = engine(above)?;
        let id = Some(container.clone());
        let by_id = Workload { engine, id, name: None, image: None, pod: None, published: None };
        stop_command(&by_id, user)
    });
    let stop = stop.unwrap_or_else(|| format!("lxc-stop -n {}", quote(container)));
    let why = format!("{why}; stopping the container through its engine lasts, a kill does not");
    Some(interrupts(stop, why))
}

fn interrupts(stop: String, why: String) -> Move {
    command(stop, why, Risk::Interrupts)
}

/// Through the engine, which may be a user's own; `None` if neither name nor id
/// is known.
fn stop_command(workload: &Workload, user: Option<(u32, Option<&str>)>) -> Option<String> {
    let id = workload.id.as_deref().map(words::short_id);
    let name = workload.name.as_deref().filter(|name| is_plain(name));
    let by_name = matches!(workload.engine, Engine::Docker | Engine::Podman);
    let target = quote(name.filter(|_| by_name).or(id)?);
    Some(match (workload.engine, user) {
        (Engine::Docker, None) => format!("docker stop {target}"),
        (Engine::Docker, Some((uid, _))) => {
            format!("docker -H unix:///run/user/{uid}/docker.sock stop {target}")
        }
        (Engine::Podman, None) => format!("podman stop {target}"),
        (Engine::Podman, Some((uid, Some(name)))) => format!(
            "runuser -u {} -- env XDG_RUNTIME_DIR=/run/user/{uid} podman stop {target}",
            quote(name)
        ),
        (Engine::Podman, Some((uid, None))) => {
            format!("podman --url unix:///run/user/{uid}/podman/podman.sock stop {target}")
        }
        (Engine::Containerd | Engine::Crio, _) => format!("crictl stop {target}"),
    })
}

/// A name as engines allow it, and in full: one that has been cut, or that could
/// be taken for an option, is not one to paste.
fn is_plain(name: &str) -> bool {
    const CUT_AT: usize = 128;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() < CUT_AT
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// The user whose engine runs the process, if not the system's.
fn user_of(process: &Process) -> Option<u32> {
    process.cgroup.as_ref().and_then(Cgroup::user)
}

/// The engine that the beginning of a cgroup path tells of, as far as the container's id;
/// `None` for LXC.
fn engine(above: &str) -> Option<Engine> {
    const CRI: [&str; 3] = ["cri-containerd", "crio-", "kubepods"];
    if above.contains("libpod") {
        Some(Engine::Podman)
    } else if CRI.iter().any(|name| above.contains(name)) {
        // Its command is CRI-O's as well.
        Some(Engine::Containerd)
    } else {
        (!above.contains("lxc")).then_some(Engine::Docker)
    }
}
