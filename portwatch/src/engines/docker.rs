//! Docker, run by root or by a user.

use super::{Names, Proxy, Says, Spec};

/// Docker's data. Source of docker-proxy's options: `docker-proxy -help`.
pub const ENGINE: Spec = Spec {
    name: "Docker",
    prefixes: &["docker-"],
    parents: &["docker"],
    units: &["docker"],
    names: Names::DockerApi("docker.sock"),
    shim: Some("cri-dockerd.sock"),
    netns: Some("docker/netns"),
    proxies: &[
        Proxy {
            options: &[
                (&["proto"], Says::Protocol),
                (&["host-ip"], Says::HostAddress),
                (&["host-port"], Says::HostPort),
                (&["container-ip"], Says::ContainerAddress),
                (&["container-port"], Says::ContainerPort),
            ],
            ..Proxy::new("docker-proxy", &["docker-proxy"]).dedicated()
        },
        // Newer versions of Docker bind in the daemon itself, and rootless ones in rootlesskit.
        // The daemon also has its API and a swarm's ports open.
        Proxy::new("dockerd", &["dockerd"]),
        Proxy::rootless("rootlesskit", &["rootlesskit"]),
    ],
    stop: "docker stop",
    users_stop: &[
        "runuser -u {user} -- docker -H unix:///run/user/{uid}/docker.sock stop",
        "setpriv --reuid={uid} --regid={uid} --clear-groups --reset-env -- docker -H \
         unix:///run/user/{uid}/docker.sock stop",
    ],
    users_list: &[
        "runuser -u {user} -- docker -H unix:///run/user/{uid}/docker.sock ps -a",
        "setpriv --reuid={uid} --regid={uid} --clear-groups --reset-env -- docker -H \
         unix:///run/user/{uid}/docker.sock ps -a",
    ],
    taken: Some("port is already allocated"),
    ..Spec::PLAIN
};

/// The command that shows which of its containers publishes a port.
pub const LIST: (&str, &str) =
    ("docker ps --filter publish={port}/{protocol}", "this shows which: stop it with docker stop");

#[cfg(test)]
mod tests {
    use crate::engines::{Engine, of_pod, tests::names};

    #[test]
    fn its_control_groups() {
        // A container gives any name to a group of its own.
        let inner = "/system.slice/docker-ID.scope/crio-ID.scope";
        let users = "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope";
        let paths = ["/system.slice/docker-ID.scope", "/docker/ID", "/docker/ID/app", inner, users];
        names(Some(Engine::Docker), &paths);
        assert_eq!(of_pod(|socket| socket == "cri-dockerd.sock"), Engine::Docker);
    }
}
