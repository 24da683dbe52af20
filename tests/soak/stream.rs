//! The agent in the soak test: only the counts of its stream are kept, because half an hour of
//! it does not fit in memory.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use portwatch_tests::{
    captured::Told,
    event::EVENT,
    http::get,
    patience, programs,
    stream::{Gate, Gated, Manner},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Interval between requests to the endpoint.
const SCRAPES: Duration = Duration::from_millis(250);

/// A running agent with a reader of its stdout, a capture, and an endpoint that is scraped all
/// the time.
pub struct Agent {
    child: Child,
    gate: Gate,
    reader: Option<JoinHandle<Told>>,
    talk: Option<JoinHandle<u64>>,
    scraper: Option<JoinHandle<()>>,
    scraped: Arc<Scraped>,
    /// The events about one failed bind each.
    events: Receiver<Value>,
    folder: TempDir,
}

#[derive(Default)]
struct Scraped {
    ended: AtomicBool,
    times: AtomicU64,
    longest_us: AtomicU64,
}

/// The result.
pub struct Ended {
    /// What its stdout accounts for; what it says that it had not written is a loss.
    pub stdout: Told,
    /// What its capture accounts for.
    pub capture: Told,
    /// How long its end took.
    pub took: Duration,
    /// How often the endpoint was asked.
    pub scrapes: u64,
    /// The longest that an answer took.
    pub longest_scrape: Duration,
}

impl Agent {
    /// Runs `portwatch run` for the port, its stdout read in this manner, until it reports
    /// that it is ready.
    pub fn start(port: &str, manner: Manner) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("metrics");
        let mut child = Command::new(programs::portwatch().unwrap())
            .args(["run", "--format", "json", "--port", port])
            .arg("--metrics")
            .arg(format!("unix:{}", socket.display()))
            .arg("--capture")
            .arg(captures(folder.path()))
            // All of it is read in the end. Closing a file takes memory, some of which stays;
            // so files are closed long before the measurement.
            .args(["--capture-size", "16GiB", "--capture-file-size", "4MiB"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let (stdout, gate) = Gated::new(child.stdout.take().unwrap(), manner);
        let reader = thread::spawn(move || {
            read(stdout, |event| {
                // Events about single failures are few among so many.
                if event["count"] == 1 {
                    sender.send(event).ok();
                }
            })
        });
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(stderr.any(|line| line.unwrap().contains("ready")), "it did not start");
        let talk = thread::spawn(move || stderr.map_while(Result::ok).map(hear).sum());
        let scraped = Arc::<Scraped>::default();
        let theirs = Arc::clone(&scraped);
        let scraper = thread::spawn(move || theirs.scrape(&socket));
        Self {
            child,
            gate,
            reader: Some(reader),
            talk: Some(talk),
            scraper: Some(scraper),
            scraped,
            events,
            folder,
        }
    }

    /// Returns its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stdout is read in this manner from now on.
    pub fn is_read(&self, manner: Manner) {
        self.gate.set(manner);
    }

    /// Reloads its configuration.
    pub fn reloads(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Discards the events so far.
    pub fn forget(&self) {
        while self.events.try_recv().is_ok() {}
    }

    /// Waits for the event about a process.
    pub fn wait_for(&self, pid: u32) -> Value {
        let deadline = Instant::now() + patience();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left.max(Duration::from_millis(1)));
            let event = event.unwrap_or_else(|_| panic!("nothing about process {pid}"));
            if event["process"]["pid"] == pid {
                return event;
            }
        }
    }

    /// Stops it, and returns everything that it reported. Its stdout is read as before until
    /// it has exited.
    pub fn end(mut self) -> Ended {
        self.scraped.ended.store(true, Relaxed);
        self.scraper.take().unwrap().join().expect("its endpoint answers");
        let begun = Instant::now();
        self.signal(Signal::TERM);
        assert!(self.child.wait().unwrap().success());
        let took = begun.elapsed();
        self.is_read(Manner::Freely);
        let mut stdout = self.reader.take().unwrap().join().unwrap();
        stdout.losses += self.talk.take().unwrap().join().unwrap();
        Ended {
            stdout,
            capture: Told::in_capture(&captures(self.folder.path())),
            took,
            scrapes: self.scraped.times.load(Relaxed),
            longest_scrape: Duration::from_micros(self.scraped.longest_us.load(Relaxed)),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.scraped.ended.store(true, Relaxed);
        // It has already exited, unless the test has failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn captures(folder: &Path) -> PathBuf {
    folder.join("capture")
}

impl Scraped {
    fn scrape(&self, socket: &Path) {
        while !self.ended.load(Relaxed) {
            let begun = Instant::now();
            assert_eq!(get(UnixStream::connect(socket).unwrap(), "/metrics").status, 200);
            let took = begun.elapsed();
            self.times.fetch_add(1, Relaxed);
            self.longest_us.fetch_max(took.as_micros().try_into().unwrap(), Relaxed);
            thread::sleep(SCRAPES.saturating_sub(took));
        }
    }
}

/// Prints its log messages, and returns what it has not written to its stdout.
fn hear(line: String) -> u64 {
    let unwritten = line.split_once("were not reported: ");
    let count = unwritten.and_then(|(_, rest)| rest.split_once(" in sink.json"));
    let count = count.and_then(|(count, _)| count.parse().ok()).unwrap_or(0);
    // Too frequent to print.
    if !line.contains("configuration reloaded") {
        eprintln!("{line}");
    }
    count
}

fn read(stdout: impl Read, mut event: impl FnMut(Value)) -> Told {
    let mut told = Told::default();
    let mut torn = false;
    for line in BufReader::new(stdout).lines() {
        assert!(!torn, "half a line, and more behind it");
        // Half a line at the end counts as not written, and stderr says so.
        let Ok(record) = serde_json::from_str::<Value>(&line.unwrap()) else {
            torn = true;
            continue;
        };
        told.count(&record);
        if record["schema"] == EVENT {
            event(record);
        }
    }
    told
}
