//! Incus and LXD, whose daemon starts a helper for each proxy device. Their containers are those
//! of LXC.

use super::{Names, Proxy, Spec};

/// The data of Incus and LXD. Source of the helper: `forkproxy` of the daemon, which the device
/// type `proxy` starts.
pub const ENGINE: Spec = Spec {
    name: "Incus",
    names: Names::Nobody,
    proxies: &[
        Proxy { argument: Some("forkproxy"), ..Proxy::new("incusd", &["incusd"]).dedicated() },
        Proxy { argument: Some("forkproxy"), ..Proxy::new("lxd", &["lxd"]).dedicated() },
    ],
    stop: "incus stop",
    list: (
        "for name in $(incus list -f csv -c n); do incus config device show $name | grep -q \
         ':{port}$' && echo $name; done",
        "this shows the instance whose proxy device has it: incus config device remove INSTANCE DEVICE \
         (LXD: lxc in place of incus)",
    ),
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::engines::{Engine, proxies};

    #[test]
    fn the_daemon_is_a_proxy_by_its_argument() {
        for comm in ["incusd", "lxd"] {
            let (engine, proxy) = proxies(comm).next().unwrap();
            assert_eq!((engine, proxy.argument), (Engine::Incus, Some("forkproxy")));
        }
    }
}
