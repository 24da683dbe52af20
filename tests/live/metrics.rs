//! Metrics: what is counted, as a real Prometheus sees it, and an endpoint that nobody
//! can block.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    cgroup::Slice,
    http::{get, send},
    kernel,
    netns::Netns,
    op::tcp,
    patience,
    process::Process,
    process::resident_kib,
    programs::portwatch,
    say,
    scene::Scene,
    skip::skip,
    stopped::Stopped,
    stopping::Stopping,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// In a namespace of the test's own, so that no neighbour has it.
const METRICS: &str = "127.0.0.1:9749";
/// The agent watches the machine: a port that no other test is refused, so that all
/// that is counted is told.
const OWN_PORT: &str = "9748";
const PROMETHEUS: &str = "127.0.0.1:9090";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An agent in `netns` that watches the machine.
fn agent_in(netns: &Netns, arguments: &[&str]) -> Agent {
    let mut command = Command::new(portwatch().unwrap());
    command.args(["run", "--format", "json"]).args(arguments);
    netns.confine(&mut command);
    Agent::start_command(&mut command).unwrap()
}

fn connect(netns: &Netns) -> TcpStream {
    netns.connect(address(METRICS)).expect("the agent listens")
}

/// The value of the sample that is written so.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until `name` has `value`; the agent counts a moment after it tells.
#[track_caller]
fn wait_for_sample(netns: &Netns, name: &str, value: f64) {
    let deadline = Instant::now() + patience();
    loop {
        let text = get(connect(netns), "/metrics").body;
        if sample(&text, name) == Some(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is not {value}:\n{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn promtool(arguments: &[&str], input: Option<&str>) -> (bool, String) {
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

fn lacks_prometheus() -> bool {
    let lacks = !Path::new("/usr/bin/prometheus").exists();
    if lacks {
        skip("prometheus", "/usr/bin/prometheus is not installed");
    }
    lacks
}

#[test]
fn each_refusal_is_counted_and_the_text_is_right() {
    let scene = Scene::new();
    let agent = agent_in(&scene.netns, &["--metrics", METRICS, "--port", OWN_PORT]);
    let own = format!("127.0.0.1:{OWN_PORT}");
    let _holder = scene.helper().holds([tcp(&own).listening()]);
    let before = get(connect(&scene.netns), "/metrics").body;
    let name = "portwatch_bind_failures_total{cause=\"listener\",protocol=\"tcp\",stage=\"bind\"}";
    let counted = sample(&before, name).unwrap_or_else(|| panic!("{before}"));
    assert_eq!(sample(&before, "portwatch_config_last_reload_successful"), Some(1.0));
    let refused = scene.helper().is_refused(tcp(&own));
    let event = agent.event_of(&refused);
    wait_for_sample(&scene.netns, name, counted + 1.0);

    let text = get(connect(&scene.netns), "/metrics");
    assert!(text.head.contains("text/plain; version=0.0.4"), "{}", text.head);
    let build = format!("hooks=\"{}\"", event.text("/host/hooks"));
    assert!(text.body.contains(&build), "{}", text.body);
    let attached = text.body.lines().filter(|line| line.starts_with("portwatch_probe_attached{"));
    assert!(attached.clone().count() >= 3, "{}", text.body);
    assert!(attached.clone().any(|line| line.ends_with(" 1")), "{}", text.body);
    if kernel::is_at_least(5, 12) {
        let name = "portwatch_probe_skipped_total{";
        let skipped = text.body.lines().filter(|line| line.starts_with(name));
        let is_attached = |line: &&str| line.ends_with(" 1");
        assert_eq!(skipped.count(), attached.filter(is_attached).count(), "{}", text.body);
    }
    let started = sample(&text.body, "portwatch_start_time_seconds").unwrap();
    assert!(started > 1_700_000_000.0, "{started}");
    for name in ["portwatch_enrichment_seconds_count", "portwatch_queue_length{queue=\"enrich\"}"] {
        assert!(sample(&text.body, name).is_some(), "{name} in {}", text.body);
    }
    if lacks_prometheus() {
        return;
    }
    let (fine, said) = promtool(&["check", "metrics"], Some(&text.body));
    assert!(fine && said.trim().is_empty(), "{said}");
}

/// What the configuration leaves out is counted, and said at the end.
#[test]
fn what_is_ignored_is_counted() {
    let scene = Scene::new();
    let slice = Slice::new();
    let group = slice.group("quiet.service");
    let arguments = [
        "--metrics",
        METRICS,
        "--ignore-port",
        "8081",
        "--ignore-unit",
        "quiet*",
        "--port",
        "8080",
    ];
    let mut agent = agent_in(&scene.netns, &[&arguments[..], &["--port", "8081"]].concat());
    let holders = [tcp("127.0.0.1:8080").listening(), tcp("127.0.0.1:8081").listening()];
    let _holder = scene.helper().holds(holders);
    let port = "portwatch_ignored_total{by=\"port\"}";
    let before = sample(&get(connect(&scene.netns), "/metrics").body, port).unwrap();
    let _port = scene.helper().is_refused(tcp("127.0.0.1:8081"));
    let quiet = scene.helper().within(&group).runs([tcp("127.0.0.1:8080").repeated(3)]);
    wait_for_sample(&scene.netns, "portwatch_ignored_total{by=\"unit\"}", 3.0);
    let told = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    agent.event_of(&told);
    // Other tests' refusals are of other ports.
    let after = sample(&get(connect(&scene.netns), "/metrics").body, port).unwrap();
    assert!(after > before, "{after}");
    let of_quiet = agent.look(|log| log.events.iter().any(|event| event.pid == Some(quiet.pid)));
    assert!(!of_quiet, "{}", agent.said());
    agent.end_by(Signal::TERM);
    assert!(agent.talk().contains("3 failed binds were ignored by unit"), "{}", agent.talk());
}

#[test]
fn over_a_unix_socket() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("metrics.sock");
    let at = format!("unix:{}", path.display());
    let mut agent = Agent::start(&["run", "--format", "json", "--metrics", &at]).unwrap();
    let answer = get(UnixStream::connect(&path).unwrap(), "/healthz");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    agent.end_by(Signal::TERM);
    assert!(!path.exists(), "the socket's file is left behind");
}

/// 200 connections that say nothing, little, or never read; and one that asks.
#[test]
fn two_hundred_that_hang_keep_nobody_out() {
    let scene = Scene::new();
    let agent = agent_in(&scene.netns, &["--metrics", METRICS, "--port", "8080"]);
    let before = resident_kib(agent.pid());
    let beginnings: [&[u8]; 4] = [
        b"",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx",
        b"GET /met",
    ];
    let hanging: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = connect(&scene.netns);
            stream.write_all(beginnings[number % beginnings.len()]).unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    let answer = get(connect(&scene.netns), "/metrics");
    let took = begun.elapsed();
    let after = resident_kib(agent.pid());
    say(&format!(
        "metrics: answered in {took:.1?} while {} connections hung; RSS {before} KiB, then {after}",
        hanging.len()
    ));
    assert_eq!(answer.status, 200);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(after <= before + 4096, "{before} KiB became {after} KiB");
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    agent.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8080")));
}

/// Connections as fast as they can be made, from the scraper's own address and by as
/// many as the machine has processors for, which say nothing or ask and do not read:
/// whoever asks is answered.
#[test]
fn a_flood_of_connections_keeps_nobody_out() {
    const SCRAPES: usize = 50;
    let scene = Scene::alone();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("metrics.sock");
    let unix = format!("unix:{}", path.display());
    for at in [METRICS, &unix] {
        let agent = agent_in(&scene.netns, &["--metrics", at, "--port", OWN_PORT]);
        let ends = AtomicBool::new(false);
        let made = AtomicUsize::new(0);
        let mut took: Vec<Duration> = thread::scope(|scope| {
            let stopping = Stopping(&ends);
            for kind in 0..2 {
                let (ends, made, netns, path) = (&ends, &made, &scene.netns, &path);
                scope.spawn(move || {
                    netns.enter();
                    // The newest are kept open, so that they hold a place.
                    let mut kept: VecDeque<Box<dyn Write>> = VecDeque::new();
                    while !ends.load(Ordering::Relaxed) {
                        let stream: Option<Box<dyn Write>> = if at == METRICS {
                            TcpStream::connect(address(METRICS)).ok().map(|s| Box::new(s) as _)
                        } else {
                            UnixStream::connect(path).ok().map(|s| Box::new(s) as _)
                        };
                        let Some(mut stream) = stream else { continue };
                        if kind == 1 {
                            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").ok();
                        }
                        made.fetch_add(1, Ordering::Relaxed);
                        kept.push_back(stream);
                        if kept.len() > 400 {
                            kept.pop_front();
                        }
                    }
                });
            }
            const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
            let mut hung_up = 0;
            let mut scrape = || {
                let begun = Instant::now();
                loop {
                    let answer = match at {
                        METRICS => send(connect(&scene.netns), REQUEST),
                        _ => send(UnixStream::connect(&path).unwrap(), REQUEST),
                    };
                    match answer {
                        Some(answer) => break assert_eq!(answer.status, 200),
                        // On a busy machine a request may come too late for its connection,
                        // where nothing but that tells the scraper from the flood.
                        None => hung_up += 1,
                    }
                    assert!(hung_up <= SCRAPES / 10, "{hung_up} of {SCRAPES} got no answer");
                }
                begun.elapsed()
            };
            let scrapes = (0..SCRAPES).map(|_| {
                let took = scrape();
                thread::sleep(Duration::from_millis(50));
                took
            });
            let took = scrapes.collect();
            drop(stopping);
            took
        });
        took.sort();
        say(&format!(
            "metrics: {SCRAPES} scrapes of {at} under {} connections: median {:.1?}, longest {:.1?}",
            made.load(Ordering::Relaxed),
            took[SCRAPES / 2],
            took[SCRAPES - 1],
        ));
        // Far above what it takes, for machines with other work to do.
        assert!(took[SCRAPES - 1] < patience() / 3, "{took:?}");
        drop(agent);
    }
}

#[test]
fn what_is_wrong_or_huge_is_refused_and_hurts_nobody() {
    let scene = Scene::new();
    let agent = agent_in(&scene.netns, &["--metrics", METRICS, "--port", "8080"]);
    let before = resident_kib(agent.pid());
    let huge_header = [&b"GET /metrics HTTP/1.1\r\nX: "[..], &vec![b'a'; 4 << 20]].concat();
    let huge_path = [&b"GET /"[..], &vec![b'a'; 4 << 20], b" HTTP/1.1\r\n\r\n"].concat();
    let huge_body = [
        &b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n"[..],
        &vec![b'a'; 4 << 20],
    ]
    .concat();
    let many_headers =
        [&b"GET /metrics HTTP/1.1\r\n"[..], &b"a: b\r\n".repeat(500), b"\r\n"].concat();
    for (what, request) in [
        ("a header", &huge_header[..]),
        ("a path", &huge_path),
        ("a body", &huge_body),
        ("headers", &many_headers),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ("no version", b"GET /metrics\r\n\r\n"),
        ("bad version", b"GET /metrics HTTP/9.9\r\n\r\n"),
        ("bytes", b"\0\0\0\0\xff\xff\r\n\r\n"),
        ("two lengths", b"GET /metrics HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    ] {
        if let Some(answer) = send(connect(&scene.netns), request) {
            assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        }
        assert_eq!(get(connect(&scene.netns), "/healthz").status, 200, "after {what}");
    }
    assert_eq!(get(connect(&scene.netns), "/secret").status, 404);
    let after = resident_kib(agent.pid());
    say(&format!("metrics: RSS {before} KiB, after requests of 4 MiB {after} KiB"));
    assert!(after <= before + 4096, "{before} KiB became {after} KiB");
}

/// Waits until the agent's health is this, and gives what it says.
#[track_caller]
fn wait_for_health(netns: &Netns, status: u16) -> String {
    let deadline = Instant::now() + patience() * 2;
    loop {
        let answer = get(connect(netns), "/healthz");
        if answer.status == status {
            return answer.body;
        }
        assert!(Instant::now() < deadline, "{answer:?}, not {status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A thread that is stopped by a debugger does not move.
#[test]
fn health_says_when_nothing_is_looked_into() {
    let scene = Scene::new();
    let agent = agent_in(&scene.netns, &["--metrics", METRICS, "--port", "8080"]);
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    assert_eq!(get(connect(&scene.netns), "/healthz").status, 200);
    let stopped = Stopped::thread(agent.pid(), "enrich");
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let unwell = wait_for_health(&scene.netns, 503);
    assert!(unwell.starts_with("enrich: "), "{unwell}");
    drop(stopped);
    agent.event_of(&refused);
    // It is taken for done a moment after it is told.
    wait_for_health(&scene.netns, 200);
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
