//! LXC and Incus, whose containers have a system of their own and a name for an id.

use super::Spec;

/// What is known of it.
pub const ENGINE: Spec = Spec {
    name: "LXC",
    prefixes: &["lxc.payload."],
    parents: &["lxc"],
    any_id: true,
    units: &["lxc", "incus"],
    stop: "lxc-stop -n",
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
