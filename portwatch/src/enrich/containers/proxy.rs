//! Reads the command lines of programs that have a port open for a container. Pure, and total
//! over any command line.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    engines::{self, Engine, Says},
    enrich::containers::{cut, published},
    evidence::{Cgroup, Process, Protocol, Workload},
    roles::{self, Role},
};

/// The most bytes of a container's name that are read. Engines have a higher limit or none.
pub const MOST_NAME: usize = 128;

/// One end of a published port: protocol, address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address; the unspecified address means all.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// A process that has a port open for a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// The engine.
    pub engine: Engine,
    /// The user who runs it.
    pub uid: Option<u32>,
    /// The container's id, if it is in the command line.
    pub id: Option<String>,
    /// The container's name, if it is in the command line.
    pub name: Option<String>,
    /// The host's end.
    pub host: Endpoint,
    /// The container's end, if it is in the command line.
    pub container: Option<(IpAddr, u16)>,
    /// Whether it has ports open for one container of this engine and for nothing else.
    pub dedicated: bool,
}

impl Proxy {
    /// Returns what the command line alone says about the container, or `None` if it says
    /// nothing.
    pub fn workload(&self) -> Option<Workload> {
        let published = self.container.map(|(_, port)| {
            published::text(self.host.address, self.host.port, port, self.host.protocol)
        });
        if published.is_none() && self.id.is_none() && self.name.is_none() {
            return None;
        }
        Some(Workload {
            engine: self.engine,
            id: self.id.clone(),
            name: self.name.clone(),
            image: None,
            pod: None,
            published,
        })
    }
}

/// Reads the command line of `process`, which has `held` open or requests it. Returns `None` if
/// the process is not a proxy.
pub fn read(process: &Process, held: Endpoint) -> Option<Proxy> {
    let claim = roles::claim_of(process).filter(|claim| claim.role == Role::ContainerProxy)?;
    let (engine, program) = engines::proxies(claim.comm).next()?;
    let mut proxy = Proxy {
        engine,
        uid: run_by(process),
        id: None,
        name: None,
        host: held,
        container: None,
        dedicated: program.dedicated,
    };
    let is_own = |argument: &&str| program.until.is_none_or(|until| !argument.starts_with(until));
    let arguments: Vec<_> = process.cmdline.iter().take_while(is_own).collect();
    let (mut address, mut port) = (None, None);
    for (names, says) in program.options {
        let Some(value) = option(&arguments, names) else { continue };
        match says {
            Says::Id => proxy.id = Some(value).filter(is_id).map(str::to_owned),
            Says::Name if value.is_empty() => {}
            Says::Name => proxy.name = Some(cut(value, MOST_NAME)),
            Says::Protocol => proxy.host.protocol = value.parse().unwrap_or(held.protocol),
            Says::HostAddress => proxy.host.address = value.parse().unwrap_or(held.address),
            Says::HostPort => proxy.host.port = value.parse().unwrap_or(held.port),
            Says::ContainerAddress => address = value.parse().ok(),
            Says::ContainerPort => port = value.parse().ok(),
        }
    }
    proxy.container = address.zip(port);
    let name = proxy.name.as_deref().unwrap_or_default();
    let mut others = engines::proxies(claim.comm);
    let by_name =
        others.find(|(_, other)| other.names.is_some_and(|names| name.starts_with(names)));
    proxy.engine = by_name.map_or(engine, |(engine, _)| engine);
    Some(proxy)
}

fn is_id(id: &&str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the user whose engine it is. The slice decides, because a rootless proxy may run as
/// a user of its own namespace.
fn run_by(process: &Process) -> Option<u32> {
    match process.uid {
        // A root shell in a login session is also in its user's slice.
        Some(0) => Some(0),
        uid => process.cgroup.as_ref().and_then(Cgroup::user).or(uid),
    }
}

/// Returns the value of one of the options `names`, in the forms of Go's flags and getopt:
/// `-a V`, `--a V`, `-a=V`, `--a=V`.
fn option<'a>(arguments: &[&'a str], names: &[&str]) -> Option<&'a str> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(option) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))
        else {
            continue;
        };
        match option.split_once('=') {
            Some((name, value)) if names.contains(&name) => return Some(value),
            None if names.contains(&option) => return rest.next().copied(),
            _ => {}
        }
    }
    None
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { protocol: Protocol::Tcp, address: Ipv4Addr::UNSPECIFIED.into(), port: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(comm: &str, cmdline: &str) -> Process {
        Process {
            comm: Some(comm.to_owned()),
            cmdline: cmdline.split(' ').map(str::to_owned).collect(),
            uid: Some(0),
            ..Process::default()
        }
    }

    #[test]
    fn docker_proxy_says_both_ends() {
        let line = "/usr/sbin/docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port 18081 \
                    -container-ip 172.17.0.2 -container-port 80 -use-listen-fd";
        let proxy = read(&process("docker-proxy", line), Endpoint::default()).unwrap();
        assert_eq!(proxy.container, Some(("172.17.0.2".parse().unwrap(), 80)));
        let workload = proxy.workload().unwrap();
        assert_eq!(workload.published.as_deref(), Some("127.0.0.1:18081->80/tcp"));
        assert_eq!((workload.name, workload.id), (None, None));
        let line = "docker-proxy --proto=udp --host-ip=:: --host-port=53 --container-ip=fd00::2 \
                    --container-port=5353";
        let workload = read(&process("x", line), Endpoint::default()).unwrap().workload().unwrap();
        assert_eq!(workload.published.as_deref(), Some("[::]:53->5353/udp"));
    }

    #[test]
    fn conmon_says_id_and_name() {
        let id = "ab".repeat(32);
        let line = format!(
            "/usr/bin/conmon --api-version 1 -c {id} -u {id} -r /usr/bin/crun -n web \
             --exit-command /usr/bin/podman --exit-command-arg -n --exit-command-arg x"
        );
        let proxy = read(&process("conmon", &line), Endpoint::default()).unwrap();
        assert_eq!((proxy.engine, proxy.name.as_deref()), (Engine::Podman, Some("web")));
        assert_eq!(proxy.id, Some(id));
        let proxy = read(&process("conmon", "conmon -c ../x -n k8s_a_b"), Endpoint::default());
        let proxy = proxy.unwrap();
        assert_eq!((proxy.engine, proxy.id), (Engine::Crio, None));
    }

    #[test]
    fn the_others_say_nothing_of_themselves() {
        for (comm, engine) in [
            ("rootlessport", Engine::Podman),
            ("rootlessport-ch", Engine::Podman),
            ("pasta.avx2", Engine::Podman),
            ("dockerd", Engine::Docker),
        ] {
            let proxy = read(&process(comm, comm), Endpoint::default()).unwrap();
            assert_eq!((proxy.engine, proxy.workload()), (engine, None));
        }
        assert_eq!(read(&process("nginx", "nginx"), Endpoint::default()), None);
    }

    proptest! {
        #[test]
        fn any_command_line_is_read(rest: Vec<String>, which in 0_usize..4) {
            let names = ["docker-proxy", "conmon", "dockerd", "x"];
            let mut process = process(names[which], names[which]);
            process.cmdline.extend(rest);
            if let Some(proxy) = read(&process, Endpoint::default()) {
                prop_assert!(proxy.name.clone().unwrap_or_default().chars().count() <= MOST_NAME);
                let _ = proxy.workload();
            }
        }

        #[test]
        fn options_in_any_order(
            options in proptest::collection::vec(
                prop_oneof![
                    Just("-host-ip".to_owned()), Just("-host-port".to_owned()),
                    Just("-container-port=99999".to_owned()), Just("-c".to_owned()),
                    Just("--cid=".to_owned()), Just("-n".to_owned()), any::<String>(),
                ],
                0..12,
            )
        ) {
            for comm in ["docker-proxy", "conmon"] {
                let mut process = process(comm, comm);
                process.cmdline.extend(options.clone());
                let _ = read(&process, Endpoint::default()).and_then(|proxy| proxy.workload());
            }
        }
    }
}
