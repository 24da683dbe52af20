//! A process, and what keeps it running.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::is_false;
use crate::{engines::Engine, redact::Cmdline, supervisors::SupervisorKind};

/// A process, with all evidence that could be collected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Process {
    /// The process id in the initial pid namespace.
    pub pid: u32,
    /// The failing thread; for a holder, the thread that has the descriptor, if the
    /// process's other threads do not share its descriptor table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// The descriptor of the socket, for a holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<u32>,
    /// The parent.
    pub ppid: Option<u32>,
    /// Its pid in its own pid namespace, if that is not the initial one: what `ps` shows
    /// in its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// The inode of its own network namespace, if the failing socket is in another one
    /// that is not the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// Whether it is writing a core dump; it keeps its descriptors until that is done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub core_dumping: bool,
    /// Whether it had exited when the agent collected the evidence, which then comes from
    /// the owner record.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
    /// Whether its first thread has exited; other threads may still run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub zombie: bool,
    /// The state of its first thread when the agent collected the evidence; absent if
    /// unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ProcessState>,
    /// What it does with SIGTERM; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigterm: Option<Sigterm>,
    /// The failing process's ancestors, nearest first, without pid 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<u32>,
    /// The thread's or process's name.
    pub comm: Option<String>,
    /// The executable's path; ends in ` (deleted)` if the file was removed.
    pub exe: Option<String>,
    /// Its working directory; absent if unknown. Ends in ` (deleted)` if the directory was
    /// removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Who vouches for the process's name, if it is the name of a program that acts for
    /// others: systemd, docker-proxy, kube-proxy and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched_by: Option<Voucher>,
    /// The arguments without secrets; empty if unknown. An ellipsis marks a cut at 4 KiB.
    pub cmdline: Cmdline,
    /// The language or runtime of its program; only collected for the failing process, if
    /// setting SO_REUSEADDR would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The real user id.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<String>,
    /// When the process started.
    #[cfg_attr(test, schemars(with = "Option<crate::evidence::Time>"))]
    pub started: Option<Timestamp>,
    /// Its control group.
    pub cgroup: Option<Cgroup>,
    /// The systemd unit, from the cgroup path.
    pub unit: Option<String>,
    /// The user whose service manager runs `unit`; absent for the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_owner: Option<u32>,
    /// The container, from the cgroup path.
    pub container: Option<String>,
    /// The Kubernetes pod's uid, from the cgroup path.
    pub pod: Option<String>,
    /// The login session, from the cgroup path.
    pub session: Option<String>,
    /// The user who logged in, if there is a session; differs from `user` after sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_user: Option<String>,
    /// The controlling terminal: `pts/3`. A process that still runs after its terminal
    /// was closed has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// The supervisor that would restart the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Supervisor>,
    /// The container in which the process runs, or for which it holds the port
    /// (docker-proxy), from the container engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Whether it holds ports for one container only, and its engine says that no container of
    /// its has published this port: the proxy was left over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub left_over: bool,
}

/// The state of a process, in the words of `proc_pid_status(5)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::VariantArray)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// `R`: it runs or can run.
    Running,
    /// `S`: it waits, and a signal wakes it.
    Sleeping,
    /// `D`: it waits in the kernel, usually for a disk, and no signal ends it before that
    /// is over.
    DiskSleep,
    /// `T`: stopped by a signal (SIGSTOP, Ctrl-Z). SIGTERM has no effect before SIGCONT,
    /// SIGKILL has.
    Stopped,
    /// `t`: stopped by a debugger or tracer.
    Traced,
    /// `Z`: its first thread has exited.
    Zombie,
    /// `X`: being removed.
    Dead,
}

/// What a process does with SIGTERM (`signal(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::VariantArray)]
#[serde(rename_all = "lowercase")]
pub enum Sigterm {
    /// It has no handler: SIGTERM ends it.
    Default,
    /// It ignores the signal.
    Ignored,
    /// Its first thread blocks the signal. Another thread may still receive it, or the
    /// process reads it with `sigwait(3)` or `signalfd(2)`.
    Blocked,
    /// It has a handler, which usually ends the process.
    Caught,
}

/// Who vouches for the name of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Voucher {
    /// Root or the kernel: it runs as root, or its program belongs to root.
    Root,
    /// Its own user, to whom its program belongs: no proof for other users.
    User,
    /// Nobody: the process itself chose the name.
    Nobody,
}

/// The language or runtime of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Python.
    Python,
    /// Node.js, Deno or Bun.
    Node,
    /// Java or another language of the JVM.
    Java,
    /// Go.
    Go,
    /// Rust.
    Rust,
    /// Ruby.
    Ruby,
    /// Perl.
    Perl,
    /// PHP.
    Php,
    /// .NET.
    Dotnet,
    /// Other machine code, usually C or C++.
    Native,
}

/// What would restart a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Supervisor {
    /// Its kind.
    pub kind: SupervisorKind,
    /// Its name for the process: the unit, program or service directory.
    pub name: Option<String>,
    /// Its own pid; `None` for systemd's system manager.
    pub pid: Option<u32>,
    /// systemd's `Restart=`: `no`, `on-failure`, `always` …
    pub restart: Option<String>,
    /// Number of restarts (systemd's `NRestarts`).
    pub restarts: Option<u32>,
    /// The unit's main process (`MainPID`), 0 if it has none; absent if unknown. A user's
    /// manager may claim any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
    /// The process of the unit's `ExecStartPre=`, `ExecReload=`, `ExecStop=` and the like
    /// (`ControlPID`), 0 if none runs; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_pid: Option<u32>,
    /// The unit's state (`ActiveState`), for a holder: `active`, `inactive`, `failed` …; absent
    /// if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// How the unit's last run ended (`Result`): `success`, `exit-code`, `start-limit-hit`
    /// …; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// How its last main process ended (`ExecMainCode`); absent if it has not, or if that
    /// is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<ExitCode>,
    /// The exit status, or the number of the signal (`ExecMainStatus`), if there is an
    /// `exit_code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Number of processes in the unit that are neither this process, nor above or below it,
    /// where this is not the unit's main process; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<u32>,
    /// The user that it runs as, if not root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The path of its configuration, if its command line names one that its own command needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Whether this is a shell whose command or script starts the process in a loop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loops: bool,
}

impl Supervisor {
    /// Returns a supervisor of which nothing else is known.
    pub fn bare(kind: SupervisorKind) -> Self {
        Self {
            kind,
            name: None,
            pid: None,
            restart: None,
            restarts: None,
            main_pid: None,
            control_pid: None,
            state: None,
            result: None,
            exit_code: None,
            exit_status: None,
            others: None,
            uid: None,
            config: None,
            loops: false,
        }
    }
}

/// How a process ended, in the words of `$EXIT_CODE` (`systemd.exec(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::VariantArray)]
#[serde(rename_all = "lowercase")]
pub enum ExitCode {
    /// It exited.
    Exited,
    /// A signal ended it.
    Killed,
    /// A signal ended it, and its core was dumped.
    Dumped,
}

/// A container, from its engine or the kubelet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Workload {
    /// The engine that runs it.
    pub engine: Engine,
    /// The container's full id.
    pub id: Option<String>,
    /// Its name; in a pod, its name in the pod's specification.
    pub name: Option<String>,
    /// Its image's name.
    pub image: Option<String>,
    /// Its pod.
    pub pod: Option<Pod>,
    /// The published port, if the process holds the port for it:
    /// `127.0.0.1:8080->80/tcp`.
    pub published: Option<String>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cgroup {
    /// The cgroup2 id.
    pub id: Option<u64>,
    /// The path below the hierarchy's root.
    pub path: Option<String>,
}

impl Cgroup {
    /// Returns the user, except root, in whose slice it is and who creates groups with any name
    /// there, or `None` for a group of the system.
    pub fn user(&self) -> Option<u32> {
        user_of_cgroup(self.path.as_deref()?).filter(|&uid| uid != 0)
    }
}

/// Returns the user in whose slice a control group is: `/user.slice/user-1000.slice/…`. Where a
/// unit comes first, the groups below it may have any name.
pub fn user_of_cgroup(path: &str) -> Option<u32> {
    let user = |part: &str| {
        let slice = part.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice"));
        let manager = || part.strip_prefix("user@")?.strip_suffix(".service");
        slice.or_else(manager)?.parse().ok()
    };
    // Seen from another cgroup namespace, a path begins with `/..`.
    let is_above = |part: &&str| part.is_empty() || *part == ".." || part.ends_with(".slice");
    let mut parts = path.split('/').skip_while(|part| is_above(part) && user(part).is_none());
    parts.next().and_then(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_names_the_user() {
        for (path, user) in [
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-x.scope", Some(1000)),
            ("/user.slice/user-1000.slice/session-3.scope", Some(1000)),
            ("/../../user.slice/user-7.slice", Some(7)),
            ("/user@7.service/app.slice", Some(7)),
            ("/user.slice/user-0.slice/session-1.scope", Some(0)),
            ("/machine.slice/libpod-x.scope", None),
            ("/user.slice/user-x.slice", None),
            ("/system.slice/app.service/user-1000.slice/user@1000.service", None),
            ("/docker/x/user.slice/user-1000.slice", None),
            ("", None),
        ] {
            assert_eq!(user_of_cgroup(path), user, "{path}");
        }
    }
}
