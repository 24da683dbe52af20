//! UDP has no states to wait for: another socket blocks.

use portwatch_tests::{
    op::udp,
    scene::{Scene, process_of},
};
use serde_json::{Value, json};

#[test]
fn udp_on_the_same_address() {
    for (address, family, ip) in
        [("127.0.0.1:5353", "ipv4", "127.0.0.1"), ("[::1]:5353", "ipv6", "::1")]
    {
        let scene = Scene::new();
        let holder = scene.helper().holds([udp(address)]);
        let refused = scene.helper().is_refused(udp(address));
        let option = if family == "ipv6" { json!(false) } else { seen(&scene, false) };

        scene.event_of(&refused).is_explained().includes(&json!({
            "failure": {
                "stage": "bind",
                "protocol": "udp",
                "family": family,
                "address": ip,
                "port": 5353,
                "reuseaddr": option,
                "reuseport": option,
                "cookie": scene.cookie_of(&refused),
            },
            "process": process_of(&refused),
            "sockets": [{
                "state": "UNCONN",
                "local": address,
                "inode": holder.outcome(0).inode,
                "holders": [{"pid": holder.pid()}],
            }],
            "diagnosis": {
                "cause": "udp",
                "holder": {"class": "old_instance", "pid": holder.pid()},
            },
        }));
    }
}

/// Only one of the two sides shares its address, as mDNS programs must.
#[test]
fn udp_with_reuseaddr_on_one_side() {
    let scene = Scene::new();
    let holder = scene.helper().holds([udp("0.0.0.0:5353")]);
    let refused = scene.helper().is_refused(udp("127.0.0.1:5353").reuseaddr());

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "failure": {"address": "127.0.0.1", "reuseaddr": seen(&scene, true)},
        "diagnosis": {"cause": "udp", "holder": {"pid": holder.pid()}},
    }));
    let gaps = event.list("/gaps").iter();
    let is_told = gaps.filter(|gap| gap["what"] == "failure.reuseaddr").count() == 1;
    assert_eq!(is_told, !scene.agent.sees_options_of_udp4(), "{event}");
}

/// Returns what is reported of an option of an IPv4 socket with this value.
fn seen(scene: &Scene, set: bool) -> Value {
    if scene.agent.sees_options_of_udp4() { json!(set) } else { Value::Null }
}

/// A TCP listener on the same port number does not block a UDP bind.
#[test]
fn udp_beside_tcp() {
    let scene = Scene::new();
    let tcp = portwatch_tests::op::tcp("127.0.0.1:5353").listening();
    let _bystander = scene.helper().holds([tcp]);
    let holder = scene.helper().holds([udp("127.0.0.1:5353")]);
    let refused = scene.helper().is_refused(udp("127.0.0.1:5353"));

    scene.event_of(&refused).is_explained().includes(&json!({
        "diagnosis": {"cause": "udp", "holder": {"pid": holder.pid()}},
    }));
}
