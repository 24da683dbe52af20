//! bind() succeeded, listen() failed: two SO_REUSEADDR sockets.

use portwatch_tests::{
    op::{Op, Stage, tcp},
    scene::Scene,
};
use serde_json::json;

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
