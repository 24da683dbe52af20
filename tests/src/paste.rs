//! Runs the commands of an event as somebody would who pastes them, and judges them by their
//! effect.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Output},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

use crate::{event::Event, op::Op, patience, programs, scene::Scene};

/// A shell that runs a command with portwatch on the path.
#[must_use]
pub fn shell(command: &str) -> Command {
    let portwatch = programs::portwatch().unwrap();
    let folder = portwatch.parent().map(Path::display).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("PATH", format!("{folder}:{path}"));
    shell
}

/// Runs a command with portwatch on the path and these variables.
#[must_use]
pub fn run_with(command: &str, variables: &[(&str, &str)]) -> Output {
    shell(command).envs(variables.iter().copied()).output().unwrap()
}

/// Runs a command with portwatch on the path.
#[must_use]
pub fn run(command: &str) -> Output {
    run_with(command, &[])
}

/// Runs a command that shows something, and returns that.
#[must_use]
pub fn show(command: &str) -> String {
    String::from_utf8_lossy(&run(command).stdout).into_owned()
}

/// Returns the command of one move.
#[must_use]
pub fn command(event: &Event, number: usize) -> String {
    event.text(&format!("/diagnosis/moves/{number}/command")).to_owned()
}

/// Returns the commands that end something, in their order.
#[must_use]
pub fn endings(event: &Event) -> Vec<String> {
    let ends = |step: &&Value| step["risk"] != "none" && step["command"].is_string();
    let endings = event.list("/diagnosis/moves").iter().filter(ends);
    endings.map(|step| step["command"].as_str().unwrap().to_owned()).collect()
}

/// Waits for the end of a process.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    let Some(pid) = Pid::from_raw(i32::try_from(pid).unwrap()) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let timeout = Timespec { tv_sec: patience().as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready == 1)
}

/// Returns whether a process runs; a zombie does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
        && !stat.is_empty()
}

/// Returns the processes that run in the scene's namespace.
fn members(scene: &Scene) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let lives_there = |pid: &u32| {
        let netns = fs::metadata(format!("/proc/{pid}/ns/net"));
        netns.is_ok_and(|netns| netns.ino() == u64::from(scene.netns.inode)) && is_alive(*pid)
    };
    pids.filter(lives_there).collect()
}

/// Returns the scene's processes with this name, of which the kernel keeps 15 characters.
#[must_use]
pub fn named(scene: &Scene, name: &str) -> Vec<u32> {
    let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    members(scene).into_iter().filter(|pid| comm(pid).trim_end() == name).collect()
}

/// Who does what an event suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Somebody who pastes the command.
    Paste,
    /// `portwatch free`.
    Free,
}

impl Way {
    /// Both: what is printed and what is done are the same.
    pub const BOTH: [Self; 2] = [Self::Paste, Self::Free];
}

/// A command that was run, and what it must have done.
pub struct Pasted<'a> {
    scene: &'a Scene,
    event: &'a Event,
    variables: Vec<(&'a str, &'a str)>,
    /// Who else may end.
    follow: Vec<u32>,
    way: Way,
    /// The process in whose mount namespace it is done.
    mounts: Option<u32>,
}

impl<'a> Pasted<'a> {
    /// The commands of this event.
    #[must_use]
    pub fn of(scene: &'a Scene, event: &'a Event) -> Self {
        Self {
            scene,
            event,
            variables: Vec::new(),
            follow: Vec::new(),
            way: Way::Paste,
            mounts: None,
        }
    }

    /// With this variable, as whoever pastes has set it for this engine or daemon.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// These end as well: parts of what is ended.
    #[must_use]
    pub fn and_with_it(mut self, pids: impl IntoIterator<Item = u32>) -> Self {
        self.follow.extend(pids);
        self
    }

    /// Done in this way.
    #[must_use]
    pub fn by(mut self, way: Way) -> Self {
        self.way = way;
        self
    }

    /// `portwatch free` sees the files that this process sees, for example an engine's socket.
    #[must_use]
    pub fn in_mounts_of(mut self, pid: u32) -> Self {
        self.mounts = Some(pid);
        self
    }

    /// Runs the first command that ends something. Then the processes `ended` have ended,
    /// nobody else in the scene has, and the failing program can do `op`.
    #[track_caller]
    pub fn frees(self, ended: &[u32], op: impl Into<Op>) {
        let text = endings(self.event).into_iter().next();
        let text = text.unwrap_or_else(|| panic!("nothing ends it\n{}", self.event));
        self.paste(&text, ended, &members(self.scene));
        self.scene.helper().succeeds([op]);
    }

    /// The same with the second command after the first, which is for what the first leaves.
    #[track_caller]
    pub fn frees_by_two(self, ended: &[u32], op: impl Into<Op>) {
        let texts = endings(self.event);
        let [first, second] = &texts[..] else { panic!("two commands\n{}", self.event) };
        // A supervisor starts programs for a moment when one of its jobs ends.
        let before = members(self.scene);
        if self.way == Way::Free {
            // It goes on by itself.
            self.paste(first, ended, &before);
            self.scene.helper().succeeds([op]);
            return;
        }
        let may_end = self.follow.clone();
        Self { follow: [&may_end[..], ended].concat(), ..self.clone() }.paste(first, &[], &before);
        self.paste(second, ended, &before);
        self.scene.helper().succeeds([op]);
    }

    /// Has `portwatch free` do what the command does, and prove it.
    #[track_caller]
    fn free(&self, text: &str) -> Output {
        let address = self.event.text("/failure/address");
        let address: IpAddr = address.parse().unwrap();
        let port = self.event.number("/failure/port").unwrap();
        let target = SocketAddr::new(address, u16::try_from(port).unwrap()).to_string();
        let mut free = match self.mounts {
            None => Command::new(programs::portwatch().unwrap()),
            Some(pid) => {
                let mut enter = Command::new("nsenter");
                enter.args(["--mount", "--target", &pid.to_string(), "--"]);
                enter.arg(programs::portwatch().unwrap());
                enter
            }
        };
        free.args(["free", &target, "--yes", "--even-if-used"]);
        free.args(["--reuseaddr", "--format", "json"]);
        // What ignores or blocks SIGTERM is killed by the printed command, and here on demand.
        let kills = text.contains("-KILL");
        if kills {
            free.args(["--kill-after", "1s"]);
        }
        if self.event.text("/failure/protocol") == "udp" {
            free.arg("--udp");
        }
        self.scene.netns.confine(&mut free);
        let output = free.envs(self.variables.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let action: Value = serde_json::from_str(&said)
            .unwrap_or_else(|why| panic!("{why}: {output:?}\n{}", self.event));
        assert_eq!(action["result"], "freed", "{action:#}\n{}", self.event);
        let did = action["steps"][0]["command"].as_str().unwrap_or_default();
        match kills {
            true => assert!(did.contains("; sleep 1; kill -KILL "), "{action:#}\n{}", self.event),
            false => assert_eq!(did, text, "{action:#}\n{}", self.event),
        }
        output
    }

    /// Runs a command. Of the processes `before`, only these may end.
    #[track_caller]
    fn paste(&self, text: &str, ended: &[u32], before: &[u32]) {
        let output = match self.way {
            Way::Paste => run_with(text, &self.variables),
            Way::Free => self.free(text),
        };
        for &pid in ended {
            assert!(has_ended(pid), "{pid} goes on after `{text}`: {output:?}\n{}", self.event);
        }
        for &pid in before {
            let may_end = ended.contains(&pid) || self.follow.contains(&pid);
            assert!(may_end || is_alive(pid), "`{text}` ended {pid}: {output:?}\n{}", self.event);
        }
    }
}

impl Clone for Pasted<'_> {
    fn clone(&self) -> Self {
        let (variables, follow) = (self.variables.clone(), self.follow.clone());
        Self { variables, follow, ..*self }
    }
}
