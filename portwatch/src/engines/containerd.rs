//! containerd, below the kubelet.

use super::{Names, Spec};

/// containerd's data.
pub const ENGINE: Spec = Spec {
    name: "containerd",
    prefixes: &["cri-containerd-"],
    parents: &["cri-containerd"],
    units: &["containerd", "kubelet", "k3s", "rke2"],
    names: Names::Kubelet,
    stop: "crictl stop",
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::engines::{Engine, tests::names};

    #[test]
    fn its_control_groups() {
        let paths = [
            "/kubepods.slice/x.slice/cri-containerd-ID.scope",
            "/system.slice/kubepods-x.slice:cri-containerd:ID",
        ];
        names(Some(Engine::Containerd), &paths);
    }
}
