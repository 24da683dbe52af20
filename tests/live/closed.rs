//! With a stderr that nobody reads: a pipe whose reader has closed it or reads nothing, a
//! closed descriptor, a full disk. tests/cli/closed.rs tests the verbs that end by themselves.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::Command,
    time::{Duration, Instant},
};

use portwatch_tests::{
    netns::Netns,
    op::tcp,
    patience,
    process::{Process, code},
    programs::portwatch,
    scene::Scene,
};
use rustix::{
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::Signal,
    stdio::dup2_stderr,
};

/// What is wrong with stderr.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The reader of the pipe has closed it.
    Pipe,
    /// The pipe is full, and its reader reads nothing.
    Stuck,
    /// `2>&-`
    Descriptor,
    /// /dev/full
    Full,
}

const FAULTS: [Fault; 4] = [Fault::Pipe, Fault::Stuck, Fault::Descriptor, Fault::Full];

/// Returns the reader of the stuck pipe.
fn spoil(command: &mut Command, fault: Fault) -> Option<OwnedFd> {
    let mut reader = None;
    let instead: Option<OwnedFd> = match fault {
        Fault::Pipe => Some(pipe_with(PipeFlags::CLOEXEC).unwrap().1),
        Fault::Stuck => {
            let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            fcntl_setpipe_size(&writing, 4096).unwrap();
            let mut writing = File::from(writing);
            writing.write_all(&[b'\n'; 4096]).unwrap();
            reader = Some(reading);
            Some(writing.into())
        }
        Fault::Descriptor => None,
        Fault::Full => Some(File::options().write(true).open("/dev/full").unwrap().into()),
    };
    // SAFETY: one system call, which is safe between fork and exec.
    unsafe {
        command.pre_exec(move || match &instead {
            Some(file) => Ok(dup2_stderr(file)?),
            None if libc::close(2) == 0 => Ok(()),
            None => Err(io::Error::last_os_error()),
        });
    }
    reader
}

#[test]
fn exec_starts_the_command() {
    let netns = Netns::new();
    for fault in FAULTS {
        let mut command = Command::new(portwatch().unwrap());
        command.args(["exec", "--", "sh", "-c", "echo it runs; exit 7"]);
        command.env("PORTWATCH_LOG", "trace");
        netns.confine(&mut command);
        let _reader = spoil(&mut command, fault);
        let mut process = Process::start(&mut command, Signal::KILL).unwrap();
        let status = process.wait_or_panic(patience());
        assert_eq!(code(status), 7, "{fault:?}\n{}", process.said());
        assert_eq!(process.stdout.wait_for_end(patience()), "it runs\n", "{fault:?}");
    }
}

/// It reloads its configuration, without anybody to report it to, and continues.
#[test]
fn run_goes_on() {
    let scene = Scene::alone();
    let _holder = scene
        .helper()
        .holds(["127.0.0.1:8080", "127.0.0.1:8081"].map(|address| tcp(address).listening()));
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("config.toml");
    for fault in FAULTS {
        fs::write(&file, "ignore-port = [8080]\nstorm-window = \"0s\"").unwrap();
        let mut command = Command::new(portwatch().unwrap());
        command.args(["run", "--format", "json", "--config"]).arg(&file);
        command.env("PORTWATCH_LOG", "trace");
        let _reader = spoil(&mut command, fault);
        let mut process = Process::start(&mut command, Signal::KILL).unwrap();
        // Once it reports events, it handles signals.
        wait_for_event(&scene, &process, "127.0.0.1:8081", || {});
        fs::write(&file, "storm-window = \"0s\"").unwrap();
        wait_for_event(&scene, &process, "127.0.0.1:8080", || process.signal(Signal::HUP));
        process.signal(Signal::TERM);
        let status = process.wait_or_panic(patience());
        assert_eq!(code(status), 0, "{fault:?}\n{}", process.said());
    }
}

/// Lets binds fail until one is reported.
fn wait_for_event(scene: &Scene, process: &Process, address: &str, before: impl Fn()) {
    let deadline = Instant::now() + patience();
    loop {
        before();
        let refused = scene.helper().is_refused(tcp(address));
        let pid = format!("\"pid\":{}", refused.pid);
        let seen = process.stdout.wait_until(Duration::from_millis(500), |lines| {
            let is_it = |line: &str| line.contains("bind-failure") && line.contains(&pid);
            lines.iter().any(|line| is_it(&line.text)).then_some(())
        });
        if seen.is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?}\n{}", process.said());
    }
}
