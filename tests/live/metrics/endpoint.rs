//! An endpoint that nobody can block, lock others out of, or break.

use std::{
    collections::VecDeque,
    io::Write,
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    http::{get, send},
    op::tcp,
    patience,
    process::resident_kib,
    say,
    scene::Scene,
    stopping::Stopping,
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{METRICS, OWN_PORT, address, agent_in, connect};

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
