//! LXC and Incus, whose containers run a whole system and use a name as their id.

use super::Spec;

/// The data of LXC and Incus.
pub const ENGINE: Spec = Spec {
    name: "LXC",
    prefixes: &["lxc.payload."],
    parents: &["lxc"],
    any_id: true,
    units: &["lxc", "incus"],
    stop: "lxc-stop -n",
    whole: Some((
        "lxc-info -n",
        "lxc-stop -n {name}; of Incus, LXD or Proxmox VE: incus stop {name}, lxc stop {name}, \
         pct stop {name}",
    )),
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::engines::{Engine, of_container};

    #[test]
    fn its_control_groups() {
        for path in [
            "/lxc.payload.web/system.slice/nginx.service",
            "/lxc/web/system.slice/nginx.service",
            "/system.slice/lxc-web.service/lxc.payload.web",
        ] {
            assert_eq!(of_container(path, "web"), Some(Engine::Lxc), "{path}");
        }
    }
}
