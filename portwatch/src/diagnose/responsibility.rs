//! Which manager is responsible for a process. The holder's class, whether it is safe to stop,
//! and the command that stops it all depend on this. It is decided once, from the evidence.

use std::borrow::Cow;

use crate::{
    diagnose::{holder, words},
    evidence::{Evidence, Process, Supervisor, SupervisorKind},
    units::{self, Kind, Launcher, Machine},
};

/// What starts and stops a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Responsible<'a> {
    /// The engine of its container, or the owner of its pod.
    Engine,
    /// A supervisor, as one of its jobs.
    Job {
        /// The supervisor, which has a name for the job.
        by: &'a Supervisor,
        /// Whether the process is a child of the supervisor. Stopping the job ends that child,
        /// and not always what the child has started.
        child: bool,
    },
    /// The service manager, as a unit.
    Unit(&'a str),
    /// The manager of a virtual machine, or of a container with a system of its own.
    Machine(Machine<'a>),
    /// A shell that starts it in a loop.
    Loop(&'a Supervisor),
    /// No manager: it runs until somebody ends it.
    Nobody(Place<'a>),
    /// Its control group is not known.
    Unknown,
}

/// Where a process runs that no manager is responsible for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In the unit of the program that launched it.
    Launched {
        /// The launcher.
        by: &'static Launcher,
        /// Its unit.
        unit: &'a str,
    },
    /// In a login session.
    Session,
    /// In a tab or pane of a terminal.
    Terminal,
    /// Below a desktop application.
    Application(&'a str),
    /// In another scope.
    Scope(&'a str),
    /// In no unit.
    NoUnit,
}

/// Determines which manager is responsible for one process.
pub fn of<'a>(evidence: &Evidence, process: &'a Process) -> Responsible<'a> {
    if process.pod.is_some() || process.container.is_some() {
        return Responsible::Engine;
    }
    let supervisor = holder::restarter(evidence, process);
    if let Some(by) = supervisor.filter(|by| by.kind.spec().is_some() && by.name.is_some()) {
        return Responsible::Job { by, child: by.pid.is_some() && process.ppid == by.pid };
    }
    if let Some(machine) = machine(process) {
        return Responsible::Machine(machine);
    }
    if let Some(unit) = service(process) {
        return Responsible::Unit(unit);
    }
    if let Some(by) = supervisor.filter(|by| by.kind == SupervisorKind::Shell) {
        return Responsible::Loop(by);
    }
    place(process).map_or(Responsible::Unknown, Responsible::Nobody)
}

/// Returns how the unit of a process relates to it.
fn kind(process: &Process) -> Option<Kind<'_>> {
    Some(units::kind(process.unit.as_deref()?, process.unit_owner.is_some()))
}

/// Returns the machine that a process is a part of.
fn machine(process: &Process) -> Option<Machine<'_>> {
    match kind(process)? {
        Kind::Machine(machine) => Some(machine),
        _ => None,
    }
}

/// Returns where a process runs that no manager is responsible for, or `None` if its control
/// group is unknown.
pub fn place(process: &Process) -> Option<Place<'_>> {
    if process.session.is_some() {
        return Some(Place::Session);
    }
    let Some(unit) = process.unit.as_deref() else {
        let known = process.cgroup.as_ref().is_some_and(|cgroup| cgroup.path.is_some());
        return known.then_some(Place::NoUnit);
    };
    Some(match kind(process)? {
        Kind::Terminal => Place::Terminal,
        Kind::Session => Place::Session,
        Kind::Application(name) => Place::Application(name),
        Kind::Launcher(by) => Place::Launched { by, unit },
        Kind::Scope | Kind::Machine(_) | Kind::Service => Place::Scope(unit),
    })
}

/// Returns the unit that is responsible for a process: neither the scope that it is in, nor the
/// service that only launched it.
pub fn service(process: &Process) -> Option<&str> {
    let unit = process.unit.as_deref().filter(|_| process.session.is_none())?;
    match kind(process)? {
        Kind::Service => Some(unit),
        Kind::Launcher(by) => is_own(process, by).then_some(unit),
        Kind::Machine(_) | Kind::Session | Kind::Terminal | Kind::Application(_) | Kind::Scope => {
            None
        }
    }
}

/// Returns whether one of them runs in a machine in which the other does not.
pub fn in_another_machine(a: &Process, b: &Process) -> bool {
    machine(a) != machine(b)
}

/// Returns whether one user started both by hand: in one login session, or in terminals of one
/// desktop. Somebody probably works there.
pub fn work_together(a: &Process, b: &Process) -> bool {
    match (place(a), place(b)) {
        (Some(Place::Session), Some(Place::Session)) => a.session == b.session,
        (Some(Place::Terminal), Some(Place::Terminal)) => {
            a.unit_owner.is_some() && a.unit_owner == b.unit_owner
        }
        _ => false,
    }
}

/// Returns why somebody may be using a process that was started by hand, where the failing one
/// was started by hand too. It is printed after the name of the process.
pub fn works_there(holder: &Process, failing: &Process) -> Option<String> {
    if work_together(holder, failing) {
        return Some("it was started in the same session as the failing program".to_owned());
    }
    let user = |process: &Process| {
        let user = process.session_user.clone().or(process.user.clone());
        // A user of a directory service has no name in /etc/passwd.
        let user = user.or(process.uid.map(|uid| format!("uid {uid}")));
        user.filter(|_| is_by_hand(process))
    };
    let (theirs, ours) = (user(holder)?, user(failing)?);
    (theirs != ours).then(|| format!("it was started by another user, {theirs}"))
}

/// Returns what somebody uses and would lose if the process exited: `an ssh connection`. The
/// process is the program that carries it, or the desktop application itself.
pub fn carries(process: &Process) -> Option<Cow<'static, str>> {
    if service(process).is_some() || process.container.is_some() {
        return None;
    }
    let comm = process.comm.as_deref().unwrap_or_default();
    if let Some(what) = units::carried_by(comm, process.exe.as_deref().unwrap_or_default()) {
        return Some(what.into());
    }
    match place(process)? {
        Place::Application(name) => {
            let parts = name.split(['.', '-']);
            let is_itself = parts.clone().any(|part| part.eq_ignore_ascii_case(comm));
            is_itself.then(|| format!("the application {name} itself").into())
        }
        _ => None,
    }
}

/// Returns what launched a process that does not belong to a service: `cron`, `a terminal`.
pub fn launcher(process: &Process) -> Option<&'static str> {
    if service(process).is_some() || process.container.is_some() {
        return None;
    }
    match place(process)? {
        Place::Launched { by, .. } => Some(by.what),
        Place::Session => Some("somebody in a login session"),
        Place::Terminal => Some("somebody in a terminal"),
        Place::Application(_) | Place::Scope(_) | Place::NoUnit => None,
    }
}

/// Returns the name of a process in a sentence about two programs: the name of the container,
/// session or service that is responsible for it, otherwise its own name.
pub fn called(process: &Process) -> String {
    let answers = process.container.is_some()
        || process.pod.is_some()
        || process.session.is_some()
        || service(process).is_some();
    let owner = words::belongs_to(process).filter(|_| answers);
    owner.unwrap_or_else(|| words::process(process).to_string())
}

/// Returns whether somebody started it by hand: in a login session or in a terminal.
pub fn is_by_hand(process: &Process) -> bool {
    matches!(place(process), Some(Place::Session | Place::Terminal))
}

/// Returns whether a process in a launcher's unit is the launcher itself: the main process of
/// the unit, or a process with the launcher's name where the main process is unknown.
fn is_own(process: &Process, launcher: &Launcher) -> bool {
    let main = process.supervisor.as_ref().and_then(|known| known.main_pid);
    // The child that serves a login has the launcher's name too.
    let by_pid1 = || process.unit_owner.is_some() || process.ppid.is_none_or(|ppid| ppid == 1);
    match main {
        Some(main) => main == process.pid,
        None => process.comm.as_deref().is_some_and(|comm| launcher.is_own(comm)) && by_pid1(),
    }
}
