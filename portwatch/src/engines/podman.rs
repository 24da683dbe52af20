//! Podman, run by root or by a user.

use super::{Names, Proxy, Says, Spec};

/// Podman's data.
pub const ENGINE: Spec = Spec {
    name: "Podman",
    prefixes: &["libpod-"],
    parents: &["libpod_parent"],
    units: &["podman"],
    names: Names::DockerApi("podman/podman.sock"),
    proxies: &[
        CONMON,
        Proxy::rootless("rootlessport", &["rootlessport", "podman"]).dedicated(),
        Proxy::rootless("rootlessport-ch", &["rootlessport", "podman"]).dedicated(),
        // The program runs itself again through `/proc/self/exe`, and its arguments contain its
        // name.
        Proxy::rootless("containers-rootlessport", &["rootlessport", "podman"]).dedicated(),
        Proxy::rootless("containers-rootlessport-child", &["rootlessport", "podman"]).dedicated(),
        // A user's Docker and nerdctl have all of their containers behind one of these.
        Proxy::rootless("slirp4netns", &["slirp4netns"]),
        Proxy::rootless("pasta", &["pasta", "passt"]),
        Proxy::rootless("pasta.avx2", &["pasta.avx2", "passt.avx2"]),
    ],
    stop: "podman stop",
    users_stop: &[
        "runuser -u {user} -- env -C / XDG_RUNTIME_DIR=/run/user/{uid} podman stop",
        "setpriv --reuid={uid} --regid={uid} --clear-groups --reset-env -- env -C / \
         XDG_RUNTIME_DIR=/run/user/{uid} podman stop",
    ],
    users_list: &[
        "runuser -u {user} -- env -C / XDG_RUNTIME_DIR=/run/user/{uid} podman ps -a",
        "setpriv --reuid={uid} --regid={uid} --clear-groups --reset-env -- env -C / \
         XDG_RUNTIME_DIR=/run/user/{uid} podman ps -a",
    ],
    // `podman ps` has no filter by port.
    list: ("podman ps | grep -w {port}", "this shows which: stop it with podman stop"),
    ..Spec::PLAIN
};

/// conmon(8) keeps the ports of root's containers open.
pub const CONMON: Proxy = Proxy {
    options: &[(&["c", "cid"], Says::Id), (&["n", "name"], Says::Name)],
    until: Some("--exit-command"),
    ..Proxy::new("conmon", &["conmon"])
};

#[cfg(test)]
mod tests {
    use crate::engines::{Engine, tests::names};

    #[test]
    fn its_control_groups() {
        let paths = ["/machine.slice/libpod-ID.scope/container", "/libpod_parent/ID"];
        names(Some(Engine::Podman), &paths);
    }
}
