//! bind() succeeded, listen() failed: two SO_REUSEADDR sockets.

use portwatch_tests::{
    op::{Op, Stage, tcp},
    paste,
    scene::Scene,
};
use serde_json::json;

const ADDRESS: &str = "127.0.0.1:8080";

#[test]
fn the_second_listen() {
    for (address, ip) in [("127.0.0.1:8080", "127.0.0.1"), ("[::1]:8080", "::1")] {
        let scene = Scene::new();
        let mut winner = scene.helper().holds([tcp(address).reuseaddr()]);
        let mut loser = scene.helper().holds([tcp(address).reuseaddr()]);
        assert_eq!(winner.does(Op::Listen(0)).stage, Stage::Done);
        let lost = loser.does(Op::Listen(0));
        assert_eq!(lost.stage, Stage::Listen, "{lost:?}");

        let event = scene.agent.wait_for("the listen", |e| e.pid == Some(loser.pid()));
        event.is_explained().includes(&json!({
            "failure": {
                "stage": "listen",
                "errno": "EADDRINUSE",
                "protocol": "tcp",
                "address": ip,
                "port": 8080,
                "reuseaddr": true,
                "cookie": lost.cookie,
            },
            "process": {"comm": "binder", "ppid": std::process::id()},
            "netns": scene.netns.told(),
            "diagnosis": {"cause": "listen_race", "holder": {"pid": winner.pid()}},
        }));
    }
}

/// Both sockets are one program's, which needs only one of them.
#[test]
fn both_of_one_program() {
    let scene = Scene::new();
    let mut both = scene.helper().holds([tcp(ADDRESS).reuseaddr(), tcp(ADDRESS).reuseaddr()]);
    assert_eq!(both.does(Op::Listen(0)).stage, Stage::Done);
    assert_eq!(both.does(Op::Listen(1)).stage, Stage::Listen);
    let event = scene.agent.wait_for("the listen", |e| e.pid == Some(both.pid()));
    event.is_explained().includes(&json!({
        "failure": {"stage": "listen"},
        "diagnosis": {"cause": "listen_race", "holder": {"class": "self", "pid": both.pid()}},
    }));
    assert!(event.advice(0).contains("remove one of the two addresses"), "{event}");
    assert_eq!(paste::endings(&event), [""; 0], "{event}");
}
