//! What a real Prometheus makes of the endpoint, and of the alerts.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use portwatch_tests::{
    http::send, netns::Netns, op::tcp, patience, process::Process, scene::Scene, skip::skip,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{METRICS, address, agent_in};

const PROMETHEUS: &str = "127.0.0.1:9090";

pub fn promtool(arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let mut command = Command::new("/usr/bin/promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus").join(name)
}

pub fn lacks_prometheus() -> bool {
    let lacks = !Path::new("/usr/bin/prometheus").exists();
    if lacks {
        skip("prometheus", "/usr/bin/prometheus is not installed");
    }
    lacks
}

#[test]
fn a_real_prometheus_scrapes_it() {
    if lacks_prometheus() {
        return;
    }
    let scene = Scene::new();
    let agent = agent_in(&scene.netns, &["--metrics", METRICS, "--port", "8080"]);
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let folder = TempDir::new().unwrap();
    let configuration = format!(
        "global:\n  scrape_interval: 200ms\n  evaluation_interval: 200ms\n\
         rule_files: ['{}']\n\
         scrape_configs:\n  - job_name: portwatch\n    static_configs:\n      - targets: ['{METRICS}']\n",
        packaged("portwatch.rules.yml").canonicalize().unwrap().display()
    );
    let file = folder.path().join("prometheus.yml");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new("/usr/bin/prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={PROMETHEUS}"));
    scene.netns.confine(&mut command);
    let prometheus = Process::start(&mut command, Signal::KILL).unwrap();
    // A first one, so that the next is an increase.
    query_until(&scene.netns, &prometheus, "up{job=\"portwatch\"}", |value| value == 1.0);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    agent.event_of(&refused);
    let sum = "sum(portwatch_bind_failures_total{cause=\"listener\"})";
    query_until(&scene.netns, &prometheus, sum, |value| value >= 1.0);
    let firing = "count(ALERTS{alertname=\"PortwatchBindRefused\"})";
    query_until(&scene.netns, &prometheus, firing, |value| value >= 1.0);
}

/// Asks Prometheus until `expected` holds of the first value.
#[track_caller]
fn query_until(netns: &Netns, prometheus: &Process, query: &str, expected: impl Fn(f64) -> bool) {
    let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = format!("/api/v1/query?query={escaped}");
    let deadline = Instant::now() + patience() * 2;
    let mut last = String::new();
    while Instant::now() < deadline {
        if let Ok(stream) = netns.connect(address(PROMETHEUS)) {
            // HTTP/1.0 is answered without chunks.
            let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
            last = send(stream, request.as_bytes()).map(|answer| answer.body).unwrap_or_default();
            let value: Value = serde_json::from_str(&last).unwrap_or_default();
            let first = value.pointer("/data/result/0/value/1").and_then(Value::as_str);
            if first.and_then(|value| value.parse().ok()).is_some_and(&expected) {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{query}: {last}\n{}", prometheus.said());
}

#[test]
fn the_alerts_are_right() {
    if lacks_prometheus() {
        return;
    }
    for arguments in
        [["check", "rules", "portwatch.rules.yml"], ["test", "rules", "portwatch.rules.test.yml"]]
    {
        let file = packaged(arguments[2]);
        let (fine, said) = promtool(&[arguments[0], arguments[1], file.to_str().unwrap()], None);
        assert!(fine, "{said}");
    }
}
