//! Container engines: plain data for each, in a file of its own (docs/extending.md). All code
//! that reads control groups, calls an engine or names its commands uses this data.

use serde::{Deserialize, Serialize};
use strum::VariantArray as _;

mod containerd;
mod crio;
mod docker;
mod incus;
mod lxc;
mod nerdctl;
mod podman;

/// A container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd, usually for Kubernetes.
    Containerd,
    /// CRI-O.
    Crio,
    /// LXC or Incus.
    Lxc,
    /// Incus or LXD, by the helper that holds a port for one of its instances.
    Incus,
    /// nerdctl, for containerd without the kubelet.
    Nerdctl,
}

impl Engine {
    /// Returns the facts about the engine.
    pub fn spec(self) -> &'static Spec {
        match self {
            Self::Docker => &docker::ENGINE,
            Self::Podman => &podman::ENGINE,
            Self::Containerd => &containerd::ENGINE,
            Self::Crio => &crio::ENGINE,
            Self::Lxc => &lxc::ENGINE,
            Self::Incus => &incus::ENGINE,
            Self::Nerdctl => &nerdctl::ENGINE,
        }
    }
}

/// The engine of a container if nothing shows which engine it is.
pub const LIKELIEST: Engine = Engine::Docker;
/// The engine of the kubelet, unless the socket of a shim shows another one.
const OF_PODS: Engine = Engine::Containerd;

/// The facts about an engine.
#[derive(Debug)]
pub struct Spec {
    /// Its display name.
    pub name: &'static str,
    /// Prefixes of a container's id in the name of its control group.
    pub prefixes: &'static [&'static str],
    /// Groups in which the name of a container's group is only its id.
    pub parents: &'static [&'static str],
    /// Whether an id may be any name. Otherwise it is hexadecimal.
    pub any_id: bool,
    /// Parts of the names of units below which it creates its containers.
    pub units: &'static [&'static str],
    /// The source of its containers' names.
    pub names: Names,
    /// The socket below `/run` over which the kubelet uses it. It decides which engine it is
    /// where the names of control groups in pods are only the container's id.
    pub shim: Option<&'static str>,
    /// The directory below `/run` with a file for each network namespace of a container.
    pub netns: Option<&'static str>,
    /// Programs that have ports open for its containers.
    pub proxies: &'static [Proxy],
    /// The command that stops a container, up to the name of the container.
    pub stop: &'static str,
    /// The command that shows a container with a whole system in it, up to the container, and
    /// the command that stops it. `None` if a container runs one program.
    pub whole: Option<(&'static str, &'static str)>,
    /// Like `stop`, for the engine of the user with the id `{uid}` and the name `{user}`. The
    /// first command whose placeholders are all known is used. Empty if only root runs the
    /// engine.
    pub users_stop: &'static [&'static str],
    /// The command that lists the containers of a user's engine, as in `users_stop`.
    pub users_list: &'static [&'static str],
    /// The command that shows which container has published `{port}` with `{protocol}`, and
    /// the next step.
    pub list: (&'static str, &'static str),
    /// What the engine says if its own table already contains the port, without asking the
    /// kernel. `None` if it has no such table.
    pub taken: Option<&'static str>,
}

impl Spec {
    /// The defaults.
    const PLAIN: Self = Self {
        name: "",
        prefixes: &[],
        parents: &[],
        any_id: false,
        units: &[],
        names: Names::Nobody,
        shim: None,
        netns: None,
        proxies: &[],
        stop: "",
        whole: None,
        users_stop: &[],
        users_list: &[],
        list: docker::LIST,
        taken: None,
    };

    /// Returns the command that shows which container has published a port.
    pub fn listing(&self, port: u16, protocol: &str) -> String {
        self.list.0.replace("{port}", &port.to_string()).replace("{protocol}", protocol)
    }
}

/// The source of containers' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The engine itself, through the Docker Engine API, on this socket below `/run` or below a
    /// user's directory there. Its commands accept these names as well as ids.
    DockerApi(&'static str),
    /// The kubelet, through its log directories.
    Kubelet,
    /// None.
    Nobody,
}

/// A program that has ports open for containers.
#[derive(Debug)]
pub struct Proxy {
    /// The process's name, of which the kernel keeps 15 characters.
    pub comm: &'static str,
    /// The programs that have this name legitimately.
    pub programs: &'static [&'static str],
    /// Whether users run it for their own containers, so that it says nothing about the
    /// containers of others.
    pub rootless: bool,
    /// The argument that the program must have. Without it the program does something else.
    pub argument: Option<&'static str>,
    /// The beginning of the container's name, if another engine uses the same program.
    pub names: Option<&'static str>,
    /// The options that say something about the container, each with all of its names.
    pub options: &'static [(&'static [&'static str], Says)],
    /// The argument after which options of other programs follow.
    pub until: Option<&'static str>,
    /// Whether each process of it has ports open for one container of this engine and for
    /// nothing else. Where the engine lists no such container, the process was left over. Other
    /// programs serve several containers, or have ports of their own.
    pub dedicated: bool,
}

impl Proxy {
    const fn new(comm: &'static str, programs: &'static [&'static str]) -> Self {
        let (rootless, argument, dedicated) = (false, None, false);
        let (names, options, until) = (None, &[], None);
        Self { comm, programs, rootless, argument, names, options, until, dedicated }
    }

    const fn dedicated(self) -> Self {
        Self { dedicated: true, ..self }
    }

    const fn rootless(comm: &'static str, programs: &'static [&'static str]) -> Self {
        Self { rootless: true, ..Self::new(comm, programs) }
    }
}

/// What an option of a [`Proxy`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The container's id.
    Id,
    /// The container's name.
    Name,
    /// The protocol.
    Protocol,
    /// The host's address.
    HostAddress,
    /// The host's port.
    HostPort,
    /// The container's address.
    ContainerAddress,
    /// The container's port.
    ContainerPort,
}

/// Returns whether a name or id of a container has no character with a meaning in a shell or a
/// URL.
pub fn is_plain(container: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    container.starts_with(|first: char| first.is_ascii_alphanumeric())
        && container.bytes().all(plain)
}

/// Returns all engines, in the order of the schema.
pub fn all() -> impl Iterator<Item = Engine> {
    Engine::VARIANTS.iter().copied()
}

/// Reads a part of a control group's path below `parent`: the container's id, and its engine
/// unless the name is only an id. In a pod ids may be shorter. Below a user's slice the user
/// creates groups with any name: containers there belong to engines that users run, and only a
/// prefix identifies them.
pub fn container<'a>(
    part: &'a str,
    parent: &str,
    of_user: bool,
    in_pod: bool,
) -> Option<(Option<Engine>, &'a str)> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    // containerd's own form is `GROUP:PARENT:ID`.
    let (parent, name) = match part.rsplit_once(':') {
        Some((before, name)) => (before.rsplit(':').next().unwrap_or(before), name),
        None => (parent, part),
    };
    let shortest = if in_pod { 32 } else { 64 };
    let is_id = |id: &str| id.len() >= shortest && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut engines = all().filter(|engine| !of_user || !engine.spec().users_stop.is_empty());
    let by_engine = engines.find_map(|engine| {
        let Spec { prefixes, parents, any_id, .. } = engine.spec();
        let after = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
        let id = after.or((!of_user && parents.contains(&parent)).then_some(name))?;
        (*any_id || is_id(id)).then_some((Some(engine), id))
    });
    by_engine.or_else(|| (!of_user && is_id(name)).then_some((None, name)))
}

/// Returns the engine of the container `id`, by the path of a control group in it. The
/// outermost group with that id counts, because the container chooses the names below it.
pub fn of_container(path: &str, id: &str) -> Option<Engine> {
    let mut parent = "";
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    parts
        .find_map(|part| {
            let above = std::mem::replace(&mut parent, part);
            container(part, above, false, true).filter(|(_, found)| *found == id)
        })?
        .0
}

/// Returns the engine whose commands reach the container `id`. If the path does not show it,
/// it is the kubelet's engine below the kubelet's groups, and the likeliest elsewhere.
pub fn commanding(path: &str, id: &str) -> Engine {
    let in_pod = || path.split_once(id).is_some_and(|(above, _)| above.contains("kubepods"));
    of_container(path, id).unwrap_or_else(|| if in_pod() { OF_PODS } else { LIKELIEST })
}

/// Returns the engine of a pod's container whose group's name is only its id. `exists` says
/// whether a socket with that name exists below `/run`.
pub fn of_pod(exists: impl Fn(&str) -> bool) -> Engine {
    all().find(|engine| engine.spec().shim.is_some_and(&exists)).unwrap_or(OF_PODS)
}

/// Returns whether the groups below a unit may be containers.
pub fn is_unit(unit: &str) -> bool {
    all().flat_map(|engine| engine.spec().units).any(|part| unit.contains(part))
}

/// Returns the proxies with the name `comm`, of all engines.
pub fn proxies(comm: &str) -> impl Iterator<Item = (Engine, &'static Proxy)> {
    all()
        .flat_map(|engine| engine.spec().proxies.iter().map(move |proxy| (engine, proxy)))
        .filter(move |(_, proxy)| proxy.comm == comm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub const ID: &str = "9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b9f81c2e4a77b1234";

    /// Checks that each path, with `ID` for a container's id, is read as that engine's.
    pub fn names(engine: Option<Engine>, paths: &[&str]) {
        for path in paths {
            assert_eq!(of_container(&path.replace("ID", ID), ID), engine, "{path}");
        }
    }

    #[test]
    fn an_id_alone_is_no_engines() {
        names(None, &["/something/ID", "/kubepods/besteffort/podx/ID", "/", ""]);
        assert_eq!(of_pod(|_| false), Engine::Containerd);
    }

    #[test]
    fn each_has_a_name_and_a_command() {
        for engine in all() {
            let Spec { name, stop, users_stop, proxies, .. } = engine.spec();
            assert!(!name.is_empty() && !stop.is_empty(), "{engine:?}");
            // What the last of them needs is always known.
            assert!(users_stop.last().is_none_or(|last| !last.contains("{user}")), "{engine:?}");
            assert!(
                proxies.iter().all(|proxy| proxy.rootless || proxy.comm.len() <= 15),
                "{engine:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_path_is_read(path: String, id: String) {
            let _ = of_container(&path, &id);
        }
    }
}
