//! The agent as a daemon: its messages to the service manager, reloads, dropped capabilities.

use std::{
    fs,
    os::unix::net::{UnixDatagram, UnixStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    helper::Helper,
    http::get,
    netns::Netns,
    op::{Op, tcp},
    patience,
    process::code,
    programs::portwatch,
    say,
    scene::Scene,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

/// The socket of a service manager.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { folder, socket }
    }

    fn starts(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(portwatch().unwrap());
        command.args(["run", "--format", "json"]).args(arguments);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command
    }

    fn config(&self, text: &str) -> String {
        let path = self.folder.path().join("config.toml");
        let whole = self.folder.path().join("config.toml.new");
        fs::write(&whole, text).unwrap();
        fs::rename(&whole, &path).unwrap();
        path.display().to_string()
    }

    /// Returns whether there is space for a message.
    fn takes_one(&self) -> bool {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        sender.send_to(b"-", self.folder.path().join("notify")).is_ok()
    }

    /// Returns the next message; `None` if none comes within `limit`.
    fn hears(&self, limit: Duration) -> Option<String> {
        let mut message = [0; 4096];
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    #[track_caller]
    fn hears_one_with(&self, part: &str) -> String {
        let deadline = Instant::now() + patience();
        let mut heard = Vec::new();
        while let Some(message) = self
            .hears(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
        {
            if message.contains(part) {
                return message;
            }
            heard.push(message);
        }
        panic!("nothing with {part}, but {heard:?}");
    }

    /// Reloads the agent's configuration, and waits until that is done.
    #[track_caller]
    fn reloads(&self, agent: &Agent) {
        signal(agent, Signal::HUP);
        let message = self.hears_one_with("RELOADING=1");
        assert!(message.contains("MONOTONIC_USEC="), "{message}");
        self.hears_one_with("READY=1");
    }
}

fn signal(agent: &Agent, signal: Signal) {
    let pid = Pid::from_raw(agent.pid().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn it_pings_while_all_is_well_and_says_that_it_stops() {
    let manager = Manager::new();
    let mut command = manager.starts(&[]);
    command.env("WATCHDOG_USEC", "400000");
    let mut agent = Agent::start_command(&mut command).unwrap();
    manager.hears_one_with("READY=1");
    let begun = Instant::now();
    for _ in 0..5 {
        manager.hears_one_with("WATCHDOG=1");
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(600), "it pings more often than it must: {took:?}");
    assert!(took < Duration::from_secs(2) * 5, "it pings too seldom: {took:?}");
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
    manager.hears_one_with("STOPPING=1");
}

/// The agent does not wait for the manager: what it does not take is dropped, except the
/// message that it waits for.
#[test]
fn a_manager_that_does_not_read_holds_nothing_up() {
    let scene = Scene::new();
    let manager = Manager::new();
    let fill = || while manager.takes_one() {};
    fill();
    let mut command = manager.starts(&["--port", "8080"]);
    command.env("WATCHDOG_USEC", "100000");
    let mut agent = Agent::start_command(&mut command).unwrap();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    agent.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8080")));
    manager.hears_one_with("READY=1");
    fill();
    signal(&agent, Signal::HUP);
    thread::sleep(Duration::from_millis(500));
    agent.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8080")));
    let begun = Instant::now();
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
    assert!(begun.elapsed() < patience() / 2, "the stop took {:?}", begun.elapsed());
}

/// Without WATCHDOG_USEC there are no pings.
#[test]
fn without_a_watchdog_it_says_nothing() {
    let manager = Manager::new();
    let mut agent = Agent::start_command(&mut manager.starts(&["--metrics", "0"])).unwrap();
    manager.hears_one_with("READY=1");
    assert_eq!(manager.hears(Duration::from_secs(1)), None);
    agent.end_by(Signal::TERM);
    manager.hears_one_with("STOPPING=1");
}

#[test]
fn a_changed_file_is_taken_over() {
    let scene = Scene::new();
    let manager = Manager::new();
    let path = manager.config("port = [8081]");
    let mut agent = Agent::start_command(&mut manager.starts(&["--config", &path])).unwrap();
    manager.hears_one_with("READY=1");
    let holders = [tcp("127.0.0.1:8080").listening(), tcp("127.0.0.1:8081").listening()];
    let _holder = scene.helper().holds(holders);
    let unseen = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    agent.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8081")));

    manager.config("port = [8080]\nredact = ['--pin=(\\d+)']");
    manager.reloads(&agent);
    let seen = scene.helper().called("app --pin=1234 x").is_refused(tcp("127.0.0.1:8080"));
    let event = agent.event_of(&seen);
    assert_eq!(event.text("/process/cmdline/0"), "app --pin=[redacted] x");

    // An invalid file changes nothing.
    manager.config("prt = [1]");
    manager.reloads(&agent);
    agent.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8080")));
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
    assert!(agent.talk().contains("config.toml:1: unknown key `prt`, did you mean `port`?"));
    let told = agent.look(|log| log.events.iter().any(|event| event.pid == Some(unseen.pid)));
    assert!(!told, "{}", agent.said());
}

/// Its file system never answers: meanwhile nothing changes, and the late result is handled
/// like any other.
#[test]
fn a_file_that_is_never_read_to_its_end_holds_nothing_up() {
    let scene = Scene::new();
    let manager = Manager::new();
    let path = manager.config("port = [8080]");
    let metrics = manager.folder.path().join("metrics");
    let endpoint = format!("unix:{}", metrics.display());
    let arguments = ["--config", &path, "--metrics", &endpoint];
    let mut agent = Agent::start_command(&mut manager.starts(&arguments)).unwrap();
    manager.hears_one_with("READY=1");
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let file = manager.folder.path().join("silent");
    fs::write(&file, "").unwrap();
    let silent = scene.helper().holds([Op::Silent(file.clone())]);
    fs::remove_file(&path).unwrap();
    let seen = format!("/proc/{}/root{}", silent.pid(), file.display());
    std::os::unix::fs::symlink(seen, &path).unwrap();

    // The first read fails, the second waits; so do further requests.
    for _ in 0..3 {
        manager.reloads(&agent);
        agent.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8080")));
        let answer = get(UnixStream::connect(&metrics).unwrap(), "/metrics");
        assert!(answer.body.contains("portwatch_config_last_reload_successful 0"), "{answer:?}");
    }
    let talk = agent.talk();
    assert!(talk.contains("not reloaded: the file could not be read within 5 s"), "{talk}");
    assert!(talk.contains("not reloaded: the file is still being read"), "{talk}");

    // Then it fails, because otherwise nothing could end the waiting thread; and it is read
    // once more.
    fs::remove_file(&path).unwrap();
    manager.config("port = [8081]");
    drop(silent);
    manager.hears_one_with("READY=1");
    manager.hears_one_with("RELOADING=1");
    manager.hears_one_with("READY=1");
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
    assert!(agent.talk().contains("configuration reloaded"), "{}", agent.talk());
}

/// 100 reloads under load: all failed binds meanwhile are reported.
#[test]
fn a_hundred_reloads_lose_nothing() {
    const RELOADS: usize = 100;
    const BINDS: u32 = 20;
    let scene = Scene::alone();
    let manager = Manager::new();
    let path = manager.config("port = [8080]\nstorm-window = \"1s\"");
    let mut agent = Agent::start_command(&mut manager.starts(&["--config", &path])).unwrap();
    manager.hears_one_with("READY=1");
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused: u64 = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let run =
                |_| scene.helper().runs([tcp("127.0.0.1:8080").repeated(BINDS)]).last().refused;
            (0..100).map(|number| u64::from(run(number))).sum()
        });
        for number in 0..RELOADS {
            let window = 1 + number % 2;
            manager.config(&format!("port = [8080]\nstorm-window = \"{window}s\""));
            manager.reloads(&agent);
        }
        load.join().unwrap()
    });
    assert_eq!(refused, 100 * u64::from(BINDS));
    // A busy machine takes its time.
    agent.wait_until("all refusals", patience() * 6, |log| {
        (log.told_in(&scene.netns) + log.losses >= refused).then_some(())
    });
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
    let (told, lost, anybodys) =
        agent.look(|log| (log.told_in(&scene.netns), log.losses, log.losses_of_anybody));
    say(&format!("reloads: {RELOADS}, {refused} refused, {told} told, {lost} lost"));
    assert_eq!(lost, anybodys, "{}", agent.talk());
    // If others' failed binds have filled the ring, some of these may be among the lost ones.
    assert!(told <= refused && told + anybodys >= refused, "{}", agent.talk());
}

/// CAP_DAC_OVERRIDE, DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN, BPF: those that are kept.
const KEPT: u64 = 1 << 1 | 1 << 2 | 1 << 19 | 1 << 21 | 1 << 39;

/// Returns the names of a process's threads; none has more capabilities than are kept.
#[track_caller]
fn threads_with_few_rights(pid: u32) -> Vec<String> {
    let mut names = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().path();
        // One that has ended meanwhile has none.
        let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
        let value = |name: &str| {
            let row = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            row.trim().to_owned()
        };
        for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapInh:", "CapAmb:"] {
            let rights = u64::from_str_radix(&value(set), 16).unwrap();
            assert_eq!(rights & !KEPT, 0, "{set}\n{status}");
        }
        names.push(value("Name:"));
    }
    names
}

/// Every thread is created after the capabilities were dropped.
#[test]
fn no_thread_has_kept_the_rights() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8091").listening()]);
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (captured, socket) = (at("capture"), format!("unix:{}", at("metrics.sock")));
    let config = at("config.toml");
    fs::write(&config, "storm-window = \"1s\"\n").unwrap();
    let capture = ["--capture", &captured, "--capture-file-size", "4KiB"];
    let outputs = ["--format", "json", "--format", "journald"];
    for options in [
        &capture[..],
        &["--metrics", "127.0.0.1:0"],
        &["--metrics", &socket],
        &["--format", "journald"],
        &["--format", "human"],
        &["--format", "markdown"],
        &["--hooks", "tracepoint", "--config", &config],
        &[&capture[..], &outputs[..], &["--metrics", &socket, "--config", &config]].concat(),
    ] {
        let mut arguments = vec!["run", "--port", "8091"];
        arguments.extend(options);
        let mut agent = Agent::start(&arguments).unwrap();
        threads_with_few_rights(agent.pid());
        for _ in 0..3 {
            let _refused = scene.helper().is_refused(tcp("127.0.0.1:8091"));
        }
        // Threads that are created on demand exist by now or soon.
        let wanted = if options.contains(&"--capture") { "capture-close" } else { "enrich" };
        let deadline = Instant::now() + patience();
        loop {
            let names = threads_with_few_rights(agent.pid());
            if names.iter().any(|name| name == wanted) {
                break;
            }
            assert!(Instant::now() < deadline, "{options:?}: {names:?}\n{}", agent.said());
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{options:?}\n{}", agent.said());
    }
}

/// Capabilities for attaching are dropped; those for naming others' processes are kept.
#[test]
fn rights_are_given_away_and_holders_still_named() {
    let scene = Scene::new();
    let agent = Agent::start(&["run", "--format", "json", "--port", "8080"]).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let mask = |name: &str| {
        let row = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(row.trim(), 16).unwrap()
    };
    let bits = |numbers: &[u32]| numbers.iter().fold(0, |all, bit| all | 1u64 << bit);
    // CAP_DAC_OVERRIDE, DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN, BPF.
    let kept = bits(&[1, 2, 19, 21, 39]);
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(mask(name) & !kept, 0, "{name} {:x}", mask(name));
    }
    assert_eq!(mask("CapInh:") | mask("CapAmb:"), 0);
    // Another user's, in another namespace, and found in every way: with an owner record, and
    // without.
    let before = scene.helper().by(1000).holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().by(1001).is_refused(tcp("127.0.0.1:8080"));
    let netns = Netns::new();
    let other = Helper::new(&netns).by(1000).holds([tcp("127.0.0.1:8080").listening()]);
    let in_other = Helper::new(&netns).by(1001).is_refused(tcp("127.0.0.1:8080"));
    for (refused, holder) in [(&refused, before.pid()), (&in_other, other.pid())] {
        let event = agent.event_of(refused);
        event.is_explained().includes(&json!({
            "diagnosis": {"cause": "listener", "holder": {"pid": holder}},
        }));
        // Its descriptor was found, not only its recorded name.
        assert!(event.number("/diagnosis/holder/fd").is_some(), "{event}");
    }
}
