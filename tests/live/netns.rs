//! The same port in different network namespaces: the holder is searched where the bind
//! failed.

use portwatch_tests::{
    helper::Helper,
    netns::Netns,
    op::{Op, Socket, tcp, udp},
    scene::Scene,
    skip::needs,
};
use serde_json::json;

#[test]
fn the_holder_is_the_one_in_the_same_namespace() {
    let (elsewhere, scene) = (Scene::new(), Scene::new());
    let _bystander = elsewhere.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));

    scene.event_of(&refused).is_explained().includes(&json!({
        "netns": {"host": false, "name": null},
        "sockets": [{"holders": [{"pid": holder.pid()}]}],
        "diagnosis": {"holder": {"pid": holder.pid()}},
    }));
}

#[test]
fn a_named_namespace() {
    let name = format!("portwatch-test-{}", std::process::id());
    let scene = Scene::within(Netns::named(&name));
    let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));

    scene.event_of(&refused).is_explained().includes(&json!({
        "netns": {"host": false, "name": name},
        "diagnosis": {"holder": {"pid": holder.pid()}},
    }));
}

/// The only test outside of a namespace of its own: the kernel picks the port.
#[test]
fn the_hosts_namespace() {
    let scene = Scene::within(Netns::host());
    let holder = scene.helper().holds([tcp("127.0.0.1:0").listening()]);
    let port = holder.outcome(0).port;
    let refused = scene.helper().is_refused(tcp(&format!("127.0.0.1:{port}")));

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "failure": {"port": port},
        "netns": {"host": true, "name": null},
        "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
    }));
    // If pid 1 cannot be read, that this is the host's is reported as a conclusion.
    let unread = std::fs::metadata("/proc/1/ns/net").is_err();
    let told = event.list("/gaps").iter().any(|gap| gap["what"] == "netns.host");
    assert_eq!(told, unread, "{event}");
}

/// One port, twenty namespaces, each with its own holder: with failures in order and out of
/// order, none is confused with another.
#[test]
fn twenty_namespaces_with_one_port() {
    let scenes: Vec<_> = (0..20).map(|_| Scene::new()).collect();
    let holders: Vec<_> = scenes
        .iter()
        .map(|scene| scene.helper().holds([tcp("127.0.0.1:8080").listening()]))
        .collect();
    for round in 0..3 {
        let order = (0..scenes.len()).map(|number| (number * 7 + round) % scenes.len());
        let refused: Vec<_> = order
            .map(|number| (number, scenes[number].helper().is_refused(tcp("127.0.0.1:8080"))))
            .collect();
        for (number, refused) in refused {
            scenes[number].event_of(&refused).is_explained().includes(&json!({
                "sockets": [{"holders": [{"pid": holders[number].pid()}]}],
                "diagnosis": {"holder": {"pid": holders[number].pid()}},
            }));
        }
    }
}

const ADDRESSES: [fn(&str) -> Socket; 2] = [tcp, udp];

/// A socket stays in the namespace that it was created in, wherever its process is when it
/// binds: a socket on the port in the process's namespace does not block it.
#[test]
fn a_socket_that_is_bound_from_another_namespace() {
    if needs("sockets_of_another_namespace", (5, 14)) {
        return;
    }
    for (make, address) in ADDRESSES
        .into_iter()
        .flat_map(|make| ["127.0.0.1:8080", "[::1]:8080"].map(|address| (make, address)))
    {
        let (scene, beside) = (Scene::new(), Netns::new());
        let holder = scene.helper().holds([make(address)]);
        let stranger = Helper::new(&beside).holds([make(address)]);
        let refused = scene.helper().is_refused(make(address).bound_beside(stranger.pid()));
        scene.event_of(&refused).is_explained().includes(&json!({
            "process": {"netns": beside.inode},
            "netns": {"host": false, "name": null},
            "diagnosis": {"holder": {"pid": holder.pid()}},
        }));
    }
}

/// No process lives in the socket's namespace, so the holder is not known; a holder of the
/// port in the process's namespace is not it.
#[test]
fn a_socket_of_a_namespace_that_nobody_is_in() {
    if needs("sockets_of_another_namespace", (5, 14)) {
        return;
    }
    for make in ADDRESSES {
        let (scene, beside) = (Scene::new(), Netns::new());
        let address = "127.0.0.1:8080";
        let stranger = Helper::new(&beside).holds([make(address)]);
        let twice = make(address).bound_beside(stranger.pid());
        // The first is created and bound there, and only then the process leaves.
        let ops = [Op::from(make(address)), Op::from(twice)];
        let refused = scene.helper().runs(ops);
        let event = scene.agent.event_of(&refused);
        event.includes(&json!({"netns": {"cookie": scene.netns.cookie, "name": null}}));
        if scene.agent.hooks_functions() {
            // The kernel's own check has named the socket, which is recorded.
            event.includes(&json!({"diagnosis": {"holder": {"pid": refused.pid}}}));
        } else {
            event.includes(&json!({
                "sockets": [],
                "diagnosis": {"holder": {"class": "unknown", "pid": null}},
            }));
            // If not every process could be read, that may be why.
            event.has_one_of("/diagnosis/cause", &["undetermined", "unseen"]);
        }
        assert_ne!(event.at("/netns/inode"), &json!(beside.inode), "{event}");
        assert!(event.list("/gaps").iter().any(|gap| gap["what"] == "netns"), "{event}");
    }
}
