//! The agent under test: `portwatch run`, from its start to its end.
//!
//! It watches the whole machine, so one serves all tests of a process ([`agent`]); each test
//! selects its own events by the failing process.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::bail;
use rustix::{
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::Signal,
    thread::{UnshareFlags, unshare_unsafe},
};
use serde_json::Value;

use crate::{
    began, cgroup,
    counted::OnlyCounted,
    event::Event,
    helper::Attempt,
    kernel,
    log::Log,
    monotonic_ns,
    netns::Netns,
    ours, patience,
    process::{Gates, Process, threads},
    programs,
    stream::{Gate, Line, Manner, Silence, Worth},
};

/// No record is longer (docs/stream.md).
pub const LONGEST: usize = 256 << 10;

/// A running agent.
pub struct Agent {
    process: Process,
    ready_ns: u64,
    log: Mutex<Log>,
    only_counted: Arc<OnlyCounted>,
}

/// Returns the agent that all tests of this process share. The first test that needs it starts
/// it, and it ends with the process.
pub fn agent() -> &'static Agent {
    began::now();
    static SHARED: OnceLock<Result<Agent, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let (sender, started) = mpsc::channel();
        // The child is signalled when the thread that started it ends, not the process, and a
        // test's thread ends with the test.
        thread::spawn(move || {
            let agent = Agent::start(&["run", "--format", "json"]);
            sender.send(agent.map_err(|error| format!("{error:#}"))).ok();
            loop {
                thread::park();
            }
        });
        started.recv().unwrap_or_else(|_| Err("the starting thread panicked".to_owned()))
    });
    match shared {
        Ok(agent) => agent,
        Err(error) => panic!("the agent did not start: {error}"),
    }
}

/// Options for an agent that reports failed binds on these ports only, so that failed binds of
/// others on the machine do not matter.
pub fn only_ports(ports: impl IntoIterator<Item = u16>) -> Vec<String> {
    ports.into_iter().flat_map(|port| ["--port".to_owned(), port.to_string()]).collect()
}

impl Agent {
    /// Runs `portwatch` with `arguments` until it reports that it is ready.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        cgroup::set_apart();
        let mut command = Command::new(programs::portwatch()?);
        Self::start_command(command.args(arguments))
    }

    /// The same for a prepared command.
    pub fn start_command(command: &mut Command) -> anyhow::Result<Self> {
        began::now();
        let only_counted = Arc::new(OnlyCounted::default());
        let taken = Arc::clone(&only_counted);
        // KILL, because nothing is left that could wait for a slow end.
        let worth = move |line: &str| match () {
            () if !ours::is(line) => Worth::Nothing,
            () if taken.take(line) => Worth::Noticing,
            () => Worth::Keeping,
        };
        let process = Process::start_keeping(command, Signal::KILL, worth)?;
        Self::ready(process, only_counted)
    }

    /// Runs it without a reader of its stdout, until the gate is dropped.
    pub fn start_stalled(arguments: &[&str]) -> anyhow::Result<(Self, Gate)> {
        let mut command = Command::new(programs::portwatch()?);
        let (agent, gates) = Self::start_gated(command.args(arguments), Manner::Stuck)?;
        Ok((agent, gates.stdout))
    }

    /// An agent with mounts of its own, `prepare`d before it starts.
    pub fn start_with_own_mounts(
        arguments: &[&str],
        prepare: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(programs::portwatch()?);
        command.args(arguments);
        // SAFETY: system calls, which are safe between fork and exec; a namespace changes, the
        // sharing of memory and descriptors does not.
        unsafe {
            command.pre_exec(move || {
                unshare_unsafe(UnshareFlags::NEWNS)?;
                mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
                prepare()
            });
        }
        Self::start_command(&mut command)
    }

    /// An agent that sees this directory as /run.
    pub fn start_with_run(arguments: &[&str], run: &Path) -> anyhow::Result<Self> {
        let run = run.to_owned();
        Self::start_with_own_mounts(arguments, move || Ok(mount_bind(&run, "/run")?))
    }

    /// An agent whose stdout is read in this manner, and both streams as the gates say.
    pub fn start_gated(command: &mut Command, stdout: Manner) -> anyhow::Result<(Self, Gates)> {
        let (process, gates) = Process::start_gated(command, Signal::KILL, stdout)?;
        Ok((Self::ready(process, Arc::default())?, gates))
    }

    /// Keeps no event in `netns` from now on, but counts them.
    pub fn only_count(&self, netns: &Netns) {
        self.only_counted.begin(netns.place());
    }

    /// Returns whether it keeps no event in `netns`.
    #[must_use]
    pub fn only_counts(&self, netns: &Netns) -> bool {
        self.only_counted.contains(netns.place())
    }

    fn ready(process: Process, only_counted: Arc<OnlyCounted>) -> anyhow::Result<Self> {
        match process.stderr.wait_for_text(patience(), "ready") {
            Ok(_) => {
                let log = Log::new(Arc::clone(&only_counted)).into();
                Ok(Self { process, ready_ns: monotonic_ns(), log, only_counted })
            }
            Err(Silence::Ended) => bail!("it ended before it was ready\n{}", process.said()),
            Err(Silence::TimedOut) => bail!("it was not ready in time\n{}", process.said()),
        }
    }

    /// Returns its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns how often the kernel skipped its programs because a task was preempted in them
    /// (`recursion_misses` of `bpf_prog_show_fdinfo`, kernel/bpf/syscall.c, 5.12).
    #[must_use]
    pub fn skipped_programs(&self) -> u64 {
        let folder = format!("/proc/{}/fdinfo", self.pid());
        let texts = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let count = |text: String| -> Option<u64> {
            let (_, count) = text.split_once("recursion_misses:")?;
            count.split_whitespace().next()?.parse().ok()
        };
        texts.filter_map(|file| count(std::fs::read_to_string(file.path()).ok()?)).sum()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends it a signal, and waits for its end and all its output.
    pub fn end_by(&mut self, signal: Signal) -> ExitStatus {
        let status = self.end_unread_by(signal);
        self.process.stdout.wait_for_end(patience());
        self.process.stderr.wait_for_end(patience());
        status
    }

    /// The same while nobody reads its output.
    pub fn end_unread_by(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.process.wait_or_panic(patience())
    }

    /// Waits for the rest of its output.
    pub fn read_to_end(&self) {
        self.process.stdout.wait_for_end(patience());
    }

    /// Returns the hook set that it has printed.
    #[must_use]
    pub fn hooks(&self) -> String {
        let talk = self.talk();
        let said = talk.lines().find_map(|line| line.split_once("ready, ")?.1.split_once(" hooks"));
        said.expect("it says so when it is ready").0.to_owned()
    }

    /// Returns whether its hooks are on functions. Then the kernel names the blocking socket.
    #[must_use]
    pub fn hooks_functions(&self) -> bool {
        self.hooks() != "tracepoint"
    }

    /// Returns whether it can see SO_REUSEADDR and SO_REUSEPORT of an IPv4 UDP socket whose
    /// bind fails: programs at `cgroup/bind4` can read them from Linux 5.11 on.
    #[must_use]
    pub fn sees_options_of_udp4(&self) -> bool {
        kernel::is_at_least(5, 11) || self.hooks_functions()
    }

    /// Returns whether the failing socket has a cookie: fexit programs can create one from Linux
    /// 5.12 on, others only if there is a cgroup2 hierarchy.
    #[must_use]
    pub fn sees_cookies(&self) -> bool {
        cgroup::is_mounted() || self.hooks() == "fexit" && kernel::is_at_least(5, 12)
    }

    /// Returns its output so far, for a failure's message.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.said()
    }

    /// Returns its output on stderr so far.
    #[must_use]
    pub fn talk(&self) -> String {
        self.process.stderr.text()
    }

    /// Waits until its output contains all of `parts`, and returns all of it.
    #[track_caller]
    pub fn output_with(&self, parts: &[&str]) -> String {
        let text = |lines: &[Line]| -> String {
            lines.iter().map(|line| format!("{}\n", line.text)).collect()
        };
        let found = self.process.stdout.wait_until(patience(), |lines| {
            Some(text(lines)).filter(|text| parts.iter().all(|part| text.contains(part)))
        });
        found.unwrap_or_else(|why| panic!("no {parts:?} ({why:?})\n{}", self.said()))
    }

    /// Waits for the event about `failed`.
    #[track_caller]
    pub fn event_of(&self, failed: &Attempt) -> Arc<Event> {
        let first = failed.outcomes.first().map_or(u64::MAX, |outcome| outcome.at_ns);
        assert!(first > self.ready_ns, "the test's own fault: the agent was not there yet");
        self.wait_for(&format!("process {}", failed.pid), |event| event.pid == Some(failed.pid))
    }

    /// Waits for what became of an event.
    #[track_caller]
    pub fn outcome_of(&self, event: &Event) -> Value {
        let id = event.at("/id");
        self.wait_until(&format!("what became of {id}"), patience(), |log| {
            log.outcomes.iter().find(|outcome| &outcome["id"] == id).cloned()
        })
    }

    /// Waits for the first event of this test for which `matches` holds; `what` describes it.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut matches: impl FnMut(&Event) -> bool) -> Arc<Event> {
        let began = began::at();
        self.wait_until(what, patience(), |log| {
            log.events.iter().find(|event| event.at_ns >= began && matches(event)).cloned()
        })
    }

    /// Waits until `answer` returns something for the records so far.
    #[track_caller]
    pub fn wait_until<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut answer: impl FnMut(&Log) -> Option<T>,
    ) -> T {
        let found = self.process.stdout.wait_until(timeout, |lines| answer(&self.read(lines)));
        let log = self.process.stdout.look(|lines| self.read(lines));
        let faults = log.faults.join("\n");
        match found {
            Ok(found) if faults.is_empty() => found,
            Ok(_) => panic!("lines of its output are at fault:\n{faults}"),
            Err(why) => panic!(
                "nothing about {what} ({why:?})\n{faults}\n\
                 --- its last events:\n{}--- its threads:\n{}--- its stderr:\n{}",
                log.overview(),
                threads(self.pid()),
                self.talk(),
            ),
        }
    }

    /// Calls `at` with the records so far.
    pub fn look<T>(&self, at: impl FnOnce(&Log) -> T) -> T {
        at(&self.process.stdout.look(|lines| self.read(lines)))
    }

    /// Parses the new `lines`.
    fn read(&self, lines: &[Line]) -> MutexGuard<'_, Log> {
        // A test that has panicked meanwhile has only read it.
        let mut log = self.log.lock().unwrap_or_else(|e| e.into_inner());
        log.go_on(lines);
        log
    }
}
