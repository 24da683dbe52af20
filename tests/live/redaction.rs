//! Secrets in command lines reach no output.

use portwatch_tests::{
    agent::Agent,
    command::{portwatch, run},
    op::tcp,
    process::code,
    scene::Scene,
};
use rustix::process::Signal;
use tempfile::TempDir;

const TITLES: [&str; 2] = [
    "holder --password=hunter2 postgres://me:hunter2@db/x",
    "failing TOKEN=hunter2 --api-key hunter2 -H Authorization: Bearer hunter2",
];

#[test]
fn of_neither_process() {
    let scene = Scene::new();
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut agent =
        Agent::start(&["run", "--format", "json", "--port", "8080", "--capture", path]).unwrap();
    let human = Agent::start(&["run", "--format", "human", "--port", "8080"]).unwrap();
    let [holding, failing] = TITLES;
    let holder = scene.helper().called(holding).holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().called(failing).is_refused(tcp("127.0.0.1:8080"));
    let event = agent.event_of(&refused);
    let first = |pointer| event.text(pointer).to_owned();
    assert_eq!(
        first("/sockets/0/holders/0/cmdline/0"),
        "holder --password=[redacted] postgres://me:[redacted]@db/x"
    );
    assert_eq!(
        first("/process/cmdline/0"),
        "failing TOKEN=[redacted] --api-key [redacted] -H Authorization: Bearer [redacted]"
    );
    let text = human.output_with(&[&refused.pid.to_string(), &holder.pid().to_string(), "do "]);
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
    let captured = run(&mut portwatch(&["replay", path, "--format", "json"])).stdout;
    assert!(captured.contains("--password=[redacted]"), "{captured}");
    let mut explain = portwatch(&["explain", "127.0.0.1:8080", "--format", "json"]);
    scene.netns.confine(&mut explain);
    explain.env("PORTWATCH_REDACT", "^(hol)der");
    let explained = run(&mut explain);
    assert!(explained.stdout.contains("[redacted]der --password=[redacted]"), "{explained}");
    for said in [agent.said(), captured, text, explained.stdout] {
        assert!(!said.contains("hunter2"), "{said}");
    }
}
