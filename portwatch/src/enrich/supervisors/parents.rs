//! Finds supervisors among the ancestors of a process.

use std::{fs, time::Instant};

use jiff::Timestamp;

use super::{
    cut,
    shell::{self, Runs},
};
use crate::{
    enrich::{aside::Who, host::Host, processes, vouch},
    evidence::{Process, Supervisor, SupervisorKind},
    redact::Cmdline,
    supervisors::{self, Job},
};

/// The most generations of parents that are followed.
const MOST_PARENTS: usize = 32;

/// What was found among the ancestors of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parents {
    /// The nearest supervisor program.
    pub supervisor: Option<Supervisor>,
    /// The nearest shell that runs a script or a command.
    pub shell: Option<Shell>,
    /// Whether the deadline ended the search.
    pub cut_short: bool,
}

/// A shell that runs a script or a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// The shell as the supervisor that restarts the process, if it does.
    pub supervisor: Supervisor,
    /// When it started.
    pub started: Option<Timestamp>,
    /// Whether it starts the process in a loop.
    pub loops: bool,
}

/// Follows the parents of a process. The search ends at a parent that has exited or cannot be
/// read.
pub fn look(host: &Host, process: &Process, deadline: Instant) -> Parents {
    let mut found = Parents::default();
    let mut next = process.ppid;
    // The process, and its ancestors so far.
    let mut line = vec![process.pid];
    // The names by which the parent starts its child.
    let comm = process.comm.as_deref().unwrap_or_default();
    let mut child = shell::names(comm, &process.cmdline, process.exe.as_deref());
    for _ in 0..MOST_PARENTS {
        let Some(pid) = next.filter(|&pid| pid != 0) else { break };
        if Instant::now() > deadline {
            found.cut_short = true;
            break;
        }
        let Some(parent) = processes::parent_of(host, pid) else { break };
        let (comm, argv) = (&parent.comm, &processes::arguments_of(host, pid, &parent));
        let uid = || processes::real_uid(host, pid);
        let supervisor = |kind, name: Option<String>, uid: Option<u32>| Supervisor {
            name: name.as_deref().filter(|name| !name.is_empty()).map(cut),
            pid: Some(pid),
            uid: uid.filter(|&uid| uid != 0),
            ..Supervisor::bare(kind)
        };
        if let (Some((kind, spec)), Some(uid)) = (supervisors::of(comm, argv), uid())
            && is_believed(host, process, pid, uid)
        {
            let (name, home) = match spec.job {
                Job::Folder { short, job } => {
                    let who = host.who(pid, parent.started_ns, Some(uid));
                    let is_job = |file| {
                        written_pid(host, who, uid, file).is_some_and(|pid| line.contains(&pid))
                    };
                    let folder = match uid {
                        0 => folder(host, pid, argv, short),
                        _ => present(host, pid)
                            .filter(|_| owns_its_folder(host, pid, uid) && job.is_none_or(is_job)),
                    };
                    (folder, None)
                }
                Job::Environment(read) => {
                    let who = processes::who(host, process.pid);
                    let variables = who.and_then(|who| host.environment(who));
                    let variable = |name: &str| variables.as_ref()?.get(name);
                    (read(&variable), spec.home.and_then(|(name, _)| variable(name)))
                }
            };
            // A title is cut at the length of the arguments that it has overwritten.
            let home = home.filter(|path| path.starts_with('/'));
            found.supervisor = Some(Supervisor {
                config: configuration(host, pid, argv, spec).or(home),
                ..supervisor(kind, name, Some(uid))
            });
            break;
        }
        // An init that is a script does not keep a particular process running.
        if found.shell.is_none() && pid != 1 {
            found.shell = shell::runs(argv).map(|runs| Shell {
                supervisor: supervisor(SupervisorKind::Shell, Some(runs.text().to_owned()), uid()),
                started: Some(processes::start(host, parent.started_ns)),
                loops: match runs {
                    Runs::Command(text) => shell::runs_in_loop(text, &child),
                    Runs::Script(path) => uid().is_some_and(|uid| {
                        let (folder, path) = (host.proc_file(pid, ""), path.to_owned());
                        let who = host.who(pid, parent.started_ns, Some(uid));
                        let read = host.aside(who, move || shell::script(folder, path, uid));
                        let text = read.ok().flatten();
                        text.is_some_and(|text| shell::runs_in_loop(&text, &child))
                    }),
                },
            });
        }
        child = shell::names(comm, argv, None);
        line.push(pid);
        next = Some(parent.ppid);
    }
    found
}

/// Returns whether an ancestor's name makes it a supervisor of the process: root's process is
/// believed for all processes, a user's process only for that user's processes.
fn is_believed(host: &Host, process: &Process, pid: u32, uid: u32) -> bool {
    if uid == 0 { vouch::is_roots_process(host, pid) } else { process.uid == Some(uid) }
}

/// Returns whether a user's supervisor is in a directory of that user. In another user's
/// directory it proves nothing about that user's service.
fn owns_its_folder(host: &Host, pid: u32, uid: u32) -> bool {
    vouch::look(&host.proc_file(pid, "cwd")).is_some_and(|folder| folder.stx_uid == uid)
}

/// Returns where its commands find a supervisor: the path of its configuration, or its
/// directory.
fn configuration(
    host: &Host,
    pid: u32,
    argv: &Cmdline,
    spec: &supervisors::Spec,
) -> Option<String> {
    if let Some((_, home)) = spec.home {
        return home(argv);
    }
    let told = supervisors::configuration(argv, spec.config)?;
    if told.starts_with('/') {
        return Some(told.to_owned());
    }
    let there = fs::read_link(host.proc_file(pid, "cwd")).ok()?.into_os_string().into_string().ok();
    there.filter(|path| path.starts_with('/')).map(|path| format!("{path}/{told}"))
}

/// Returns the directory that root's supervisor watches. The supervisors of runit and s6 change to
/// it at once, so it is also known where their arguments contain only a relative path.
fn folder(host: &Host, pid: u32, argv: &Cmdline, short: bool) -> Option<String> {
    let told = argv.iter().nth(1)?;
    if told.starts_with('/') {
        return Some(told.to_owned());
    }
    present(host, pid).or_else(|| (short && !told.starts_with('-')).then(|| told.to_owned()))
}

/// Returns the directory in which a process is. A user's process can write any path into its
/// arguments.
fn present(host: &Host, pid: u32) -> Option<String> {
    let there = fs::read_link(host.proc_file(pid, "cwd")).ok()?.into_os_string().into_string().ok();
    there.filter(|path| path.starts_with('/') && path != "/" && !path.ends_with(" (deleted)"))
}

/// Returns the pid of the job that a supervisor has written into a file in its directory.
fn written_pid(host: &Host, who: Who, uid: u32, file: &'static str) -> Option<u32> {
    let folder = host.proc_file(who.pid, "");
    let read = host.aside(who, move || shell::script(folder, file.to_owned(), uid));
    read.ok().flatten()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn argv(line: &str) -> Cmdline {
        line.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_counts_if_it_runs_a_script_or_a_command() {
        for (line, runs_what) in [
            ("sh|-c|while :; do ./app; done", Some("while :; do ./app; done")),
            ("/bin/bash|./loop.sh", Some("./loop.sh")),
            ("bash|-eo|pipefail|run.sh|--port", Some("run.sh")),
            ("bash|-lc|exec app", Some("exec app")),
            ("bash|--norc|--|run.sh", Some("run.sh")),
            ("bash|+x|run.sh", Some("run.sh")),
            ("/bin/busybox|ash|run.sh", Some("run.sh")),
            ("bash|-c", Some("")),
            ("bash", None),
            ("-bash", None),
            ("-zsh|-i", None),
            ("bash|--rcfile|/tmp/rc", None),
            ("bash|--rcfile|/tmp/rc|-i", None),
            ("sh|-s|argument", None),
            ("busybox|httpd", None),
            ("java|-jar|app.jar", None),
            ("", None),
        ] {
            assert_eq!(shell::runs(&argv(line)).map(Runs::text), runs_what, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_read(argv: Vec<String>) {
            let _ = shell::runs(&Cmdline::from(argv));
        }

        #[test]
        fn any_options_are_read(argv in proptest::collection::vec("[-+]{0,2}[a-zO]{0,3}|busybox|sh|é", 0..6)) {
            let _ = shell::runs(&Cmdline::from(argv));
        }
    }
}
