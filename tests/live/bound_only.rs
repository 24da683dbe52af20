//! A socket is bound and never listened: no tool shows it, and the kernel's bind fails.

use portwatch_tests::{
    cgroup::Slice,
    event::Event,
    kernel,
    op::tcp,
    programs::Alias,
    scene::{Scene, process_of},
};
use serde_json::json;

#[test]
fn bound_and_not_listening() {
    for address in ["127.0.0.1:8080", "[::1]:8080"] {
        let scene = Scene::new();
        let holder = scene.helper().holds([tcp(address)]);
        let refused = scene.helper().is_refused(tcp(address));
        let held = holder.outcome(0);

        let event = scene.event_of(&refused);
        if !kernel_shows_them() {
            assert_not_guessed(&event, holder.pid());
            continue;
        }
        event.is_explained().includes(&json!({
            "failure": {"stage": "bind", "protocol": "tcp", "port": 8080},
            "process": process_of(&refused),
            "sockets": [{
                "state": "BOUND",
                "local": address,
                "remote": null,
                "inode": held.inode,
                "cookie": held.cookie,
                "holders": [{"pid": holder.pid()}],
            }],
            "diagnosis": {
                "cause": "bound_not_listening",
                "holder": {"class": "old_instance", "pid": holder.pid()},
            },
        }));
        assert!(event.advice(0).contains(&format!("kill {}", holder.pid())), "{event}");
    }
}

#[test]
fn bound_by_another_service() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let (theirs, ours) = (slice.group("app-a.service"), slice.group("app-b.service"));
    let payments = Alias::new("payments-api");
    let holder = scene.helper().within(&theirs).run_as(&payments).holds([tcp("0.0.0.0:8080")]);
    let refused = scene.helper().within(&ours).is_refused(tcp("127.0.0.1:8080"));

    let event = scene.event_of(&refused);
    if !kernel_shows_them() {
        return assert_not_guessed(&event, holder.pid());
    }
    event.is_explained().includes(&json!({
        "diagnosis": {
            "cause": "bound_not_listening",
            "holder": {
                "class": "other_service",
                "pid": holder.pid(),
                "comm": "payments-api",
                "unit": "app-a.service",
            },
        },
    }));
}

/// Before Linux 6.8 no listing of the kernel has such sockets.
pub fn kernel_shows_them() -> bool {
    kernel::is_at_least(6, 8)
}

/// There the hooks may name the socket and the owner record its binder; what is not known is a
/// gap.
fn assert_not_guessed(event: &Event, holder: u32) {
    event.has_one_of("/diagnosis/cause", &["bound_not_listening", "undetermined"]);
    let told = event.number("/diagnosis/holder/pid");
    assert!(told.is_none_or(|pid| pid == u64::from(holder)), "{event}");
    assert!(event.at("/gaps").to_string().contains("sockets.bound"), "no gap for it\n{event}");
}
