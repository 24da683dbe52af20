//! CRI-O, below the kubelet.

use super::{Names, Proxy, Spec, podman};

/// CRI-O's data.
pub const ENGINE: Spec = Spec {
    name: "CRI-O",
    prefixes: &["crio-"],
    units: &["crio"],
    names: Names::Kubelet,
    // The monitor of Podman, with the kubelet's name for the container.
    proxies: &[Proxy { names: Some("k8s_"), ..podman::CONMON }],
    stop: "crictl stop",
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::engines::{Engine, tests::names};

    #[test]
    fn its_control_groups() {
        names(Some(Engine::Crio), &["/kubepods.slice/kubepods-podx.slice/crio-ID.scope"]);
    }
}
