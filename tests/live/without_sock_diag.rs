//! A kernel without the modules that list sockets: the event is reported, and names what it
//! lacks.

use portwatch_tests::{
    op::{tcp, udp},
    scene::{Scene, process_of},
};
use serde_json::json;

#[test]
#[ignore = "needs a kernel without sock_diag: cargo xtask vm"]
fn an_event_comes_with_a_gap() {
    for (held, wanted, protocol) in [
        (tcp("127.0.0.1:8080").listening(), tcp("127.0.0.1:8080"), "tcp"),
        (tcp("[::]:8080").listening(), tcp("127.0.0.1:8080"), "tcp"),
        (udp("127.0.0.1:8080"), udp("127.0.0.1:8080"), "udp"),
    ] {
        let scene = Scene::new();
        let holder = scene.helper().holds([held]);
        let refused = scene.helper().is_refused(wanted);

        let event = scene.event_of(&refused);
        event.includes(&json!({
            "count": 1,
            "failure": {"stage": "bind", "protocol": protocol, "port": 8080},
            "process": process_of(&refused),
        }));
        let gaps = event.list("/gaps").iter();
        let told =
            gaps.filter(|gap| gap["what"].as_str().is_some_and(|s| s.starts_with("sockets")));
        assert!(told.count() > 0, "no gap for the sockets\n{event}");
        // If a holder is named all the same, it is the right one.
        let named = event.number("/diagnosis/holder/pid");
        assert!(named.is_none_or(|pid| pid == u64::from(holder.pid())), "{event}");
        // The hooks have seen the blocking socket, and its inode leads to its holder.
        if scene.agent.hooks_functions() {
            event.is_explained();
            assert_eq!(named, Some(u64::from(holder.pid())), "{event}");
        }
    }
}
