//! Several outputs at once.

use std::fs;

use portwatch_tests::{agent::Agent, op::tcp, patience, process::code, scene::Scene};
use rustix::process::Signal;
use tempfile::TempDir;

/// Nobody reads stdout; the capture still has everything.
#[test]
fn one_that_nobody_reads_does_not_hold_up_another() {
    let scene = Scene::alone();
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let (mut agent, gate) =
        Agent::start_stalled(&["run", "--format", "json", "--capture", path, "--port", "8080"])
            .unwrap();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    // More than a pipe holds.
    let refused: Vec<u32> =
        (0..40).map(|_| scene.helper().runs([tcp("127.0.0.1:8080")]).pid).collect();
    let deadline = std::time::Instant::now() + patience();
    loop {
        let text: String = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        if refused.iter().all(|pid| text.contains(&format!("\"pid\":{pid},"))) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{text}\n{}", agent.talk());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(gate);
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
}
