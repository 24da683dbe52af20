//! nerdctl, which runs containers of containerd without the kubelet.

use super::Spec;

/// nerdctl's data.
pub const ENGINE: Spec = Spec {
    name: "nerdctl",
    prefixes: &["nerdctl-"],
    units: &["containerd"],
    stop: "nerdctl stop",
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::engines::{Engine, tests::names};

    #[test]
    fn its_control_groups() {
        let paths = ["/system.slice/nerdctl-ID.scope", "/user.slice/nerdctl-ID.scope"];
        names(Some(Engine::Nerdctl), &paths);
    }
}
