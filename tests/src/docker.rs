//! A real Docker engine of a test's own: its ports, its directory and its socket are separate
//! from those of any other on the machine.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{agent::Agent, netns::Netns, ours, patience, process::Process, programs};

/// The programs that it needs: the engine, its client, the one inside.
const PROGRAMS: [&str; 3] = ["dockerd", "docker", "busybox"];

/// A running engine without any containers.
pub struct Docker {
    _daemon: Process,
    folder: TempDir,
}

impl Docker {
    /// Starts the engine in `netns`; `Err` names the program that is missing.
    pub fn start(netns: &Netns) -> Result<Self, String> {
        if let Some(missing) = PROGRAMS.iter().find(|name| programs::installed(name).is_none()) {
            return Err(format!("{missing} is not installed"));
        }
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(at("run")).unwrap();
        let mut command = Command::new("dockerd");
        command.args(["--host", &format!("unix://{}", at("run/docker.sock"))]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec")]);
        command.args(["--pidfile", &at("pid")]);
        // Nothing here leaves the machine, and the file system need not be fast.
        command.args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        command.args(["--storage-driver", "vfs"]);
        netns.confine(&mut command);
        let daemon = Process::start(&mut command, Signal::TERM).unwrap();
        let ready = daemon.stderr.wait_for_text(patience(), "API listen on");
        assert!(ready.is_ok(), "the engine is not ready\n{}", daemon.said());
        Ok(Self { _daemon: daemon, folder })
    }

    /// Returns an agent that has this engine's socket at the usual path.
    #[must_use]
    pub fn agent(&self) -> Agent {
        Agent::start_with_run(&["run", "--format", "json"], &self.run_folder()).unwrap()
    }

    /// An image `name` with nothing but busybox in it.
    pub fn import(&self, name: &str) {
        let root = self.folder.path().join("image");
        fs::create_dir_all(root.join("bin")).unwrap();
        let busybox = programs::installed("busybox").unwrap();
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).args(["-c", "."]).stdout(Stdio::piped());
        let mut archive = tar.spawn().unwrap();
        let mut import = self.client(&["import", "-", name]);
        let output = import.stdin(archive.stdout.take().unwrap()).output().unwrap();
        assert!(archive.wait().unwrap().success() && output.status.success(), "{output:?}");
    }

    /// Runs `docker` with `arguments`, and returns its output.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments).output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // A new container's id; its control group is not below the tests'.
        if answer.len() == 64 {
            ours::add_mark(&answer);
        }
        answer
    }

    /// The id of container `name`.
    #[must_use]
    pub fn id_of(&self, name: &str) -> String {
        self.run(&["inspect", "--format", "{{.Id}}", name])
    }

    /// The client of this engine, with `arguments`.
    #[must_use]
    pub fn client(&self, arguments: &[&str]) -> Command {
        let socket = self.run_folder().join("docker.sock");
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", socket.display())).args(arguments);
        command
    }

    /// The value of `DOCKER_HOST` for whoever uses this engine.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.run_folder().join("docker.sock").display())
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }
}
