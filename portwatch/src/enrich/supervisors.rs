//! Finds what keeps a process running: a supervisor among its ancestors, its systemd unit, or a
//! loop in a shell.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    enrich::{cgroups, host::Host, processes},
    evidence::{Evidence, Fact, Gap, Process, Protocol, Supervisor, SupervisorKind},
    roles::{self, Role},
};

mod parents;
mod shell;
pub mod systemd;

use parents::{Parents, Shell};
use systemd::{Failure, Listener, Run, Service};

/// The most answers of each kind that are cached.
const MOST_REMEMBERED: usize = 64;
/// How long an answer is cached. A service that fails again and again causes one request, and a
/// manager that does not answer does not cause a wait each time.
const BELIEVED: Duration = Duration::from_secs(2);
/// If less time than this is left, systemd is not asked: a timeout would say nothing about
/// systemd. An answer takes one or two milliseconds.
const SHORTEST: Duration = Duration::from_millis(10);
/// The most processes that are examined for one failed bind.
const MOST_PROCESSES: usize = 8;

/// Finds supervisors, and caches the results for a moment.
#[derive(Default)]
pub struct Supervisors {
    parents: Remembered<(u32, Option<Timestamp>), Parents>,
    services: Remembered<(Option<u32>, String), Result<Service, Failure>>,
    /// The managers that could not be reached, by their user.
    silent: Remembered<Option<u32>, Failure>,
    listeners: Remembered<(), Vec<Listener>>,
}

impl Supervisors {
    /// Fills in `supervisor` for the failing process and for the processes that have the
    /// sockets open. Fills in `unit` where systemd itself listens for a `.socket` unit, or
    /// where systemd is the failing process.
    pub fn describe_all(&mut self, host: &Host, evidence: &mut Evidence, deadline: Instant) {
        let Evidence { failure, process: failing, sockets, gaps, .. } = evidence;
        let before = [&evidence.last_holder, &evidence.previous_holder];
        let before: Vec<&Process> = before.into_iter().flatten().map(|it| &it.process).collect();
        let protocol = failure.protocol;
        self.describe(host, failing, &before, deadline, gaps);
        // It is about to change, with each failure again.
        if let Some(supervisor) = &mut failing.supervisor {
            supervisor.state = None;
        }
        let mut known = HashMap::from([(failing.pid, failing.supervisor.clone())]);
        let mut left_out = false;
        for socket in sockets.iter_mut() {
            let local = socket.local;
            for holder in &mut socket.holders {
                if listens_for_units(holder) {
                    match self.socket_unit(host, local, protocol, deadline) {
                        Ok(Some(unit)) => holder.unit = Some(unit),
                        Ok(None) => {}
                        Err(why) => add_once(gaps, Fact::HolderUnit, why),
                    }
                }
                if let Some(supervisor) = known.get(&holder.pid) {
                    holder.supervisor.clone_from(supervisor);
                } else if known.len() < MOST_PROCESSES {
                    self.describe(host, holder, &before, deadline, gaps);
                    known.insert(holder.pid, holder.supervisor.clone());
                } else {
                    left_out = true;
                }
            }
        }
        // systemd's child is in the control group of its unit.
        let is_known = failing.unit.as_deref().is_some_and(|unit| unit.ends_with(".socket"));
        if listens_for_units(failing) && !is_known {
            let wanted = SocketAddr::new(failure.address, failure.port);
            match self.refused_unit(host, wanted, protocol, deadline) {
                Ok(unit) => failing.unit = unit.or(failing.unit.take()),
                Err(why) => add_once(gaps, Fact::Unit, why),
            }
        }
        if left_out {
            let why = format!("only the first {MOST_PROCESSES} processes were checked");
            add_once(gaps, Fact::Supervisor, why);
        }
    }

    /// Fills in `process.supervisor`. Leaves it `None` where nothing keeps the process running,
    /// and adds a gap `supervisor` where that is unknown.
    ///
    /// A supervisor program comes first, because its jobs are stopped one by one, although all
    /// of them are in its own unit. A shell's loop ends with the service that it is in. A scope
    /// restarts nothing, but the loop in it does. A shell without a loop is only a parent,
    /// unless one of the processes that had the port `before` was its child too.
    pub fn describe(
        &mut self,
        host: &Host,
        process: &mut Process,
        before: &[&Process],
        deadline: Instant,
        gaps: &mut Vec<Gap>,
    ) {
        // What starts pid 1 is not visible from here.
        if process.pid == 1 {
            return;
        }
        let key = (process.pid, process.started);
        let parents = self.parents.recall(&key).unwrap_or_else(|| {
            let parents = parents::look(host, process, deadline);
            if !parents.cut_short {
                self.parents.remember(key, parents.clone());
            }
            parents
        });
        if parents.cut_short {
            add_once(
                gaps,
                Fact::Supervisor,
                "looking at the parents took longer than its deadline",
            );
        }
        let shell = parents.shell.filter(|shell| shell.loops || was_seen(shell, process, before));
        let shell = shell.map(|shell| Supervisor { loops: shell.loops, ..shell.supervisor });
        process.supervisor = parents.supervisor.or_else(|| {
            let unit = self.unit(host, process, deadline, gaps);
            let starts_again =
                unit.as_ref().is_some_and(|unit| unit.name.as_deref().is_some_and(is_service));
            if starts_again { unit } else { shell.or(unit) }
        });
    }

    /// Returns the loaded `.socket` unit that listens on an address, or `None` if there is
    /// none, or no systemd.
    ///
    /// # Errors
    /// The reason why systemd could not be asked.
    pub fn socket_unit(
        &mut self,
        host: &Host,
        local: SocketAddr,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Option<String>, Failure> {
        if !systemd::is_running(host) {
            return Ok(None);
        }
        let listeners = match self.listeners.recall(&()) {
            Some(listeners) => listeners,
            None => {
                let listeners = self.listeners(host, systemd::LISTENING, deadline)?;
                self.listeners.remember((), listeners.clone());
                listeners
            }
        };
        Ok(systemd::listening_unit(&listeners, local, protocol).map(str::to_owned))
    }

    /// Returns the `.socket` unit whose bind by systemd has just failed at an address. An older
    /// answer says nothing about it.
    fn refused_unit(
        &mut self,
        host: &Host,
        local: SocketAddr,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Option<String>, Failure> {
        if !systemd::is_running(host) {
            return Ok(None);
        }
        let refused = self.listeners(host, systemd::REFUSED, deadline)?;
        Ok(systemd::listening_unit(&refused, local, protocol).map(str::to_owned))
    }

    fn listeners(
        &mut self,
        host: &Host,
        states: &[&str],
        deadline: Instant,
    ) -> Result<Vec<Listener>, Failure> {
        if let Some(why) = self.silent.recall(&None) {
            return Err(why);
        }
        has_time(deadline)?;
        let listeners = systemd::listeners(host, states, deadline);
        self.note_silence(None, listeners)
    }

    /// Finds the unit of a process, if the host's systemd or a user's systemd runs it. For a
    /// process in a container, the unit is the engine's own, or one of a systemd inside the
    /// container.
    fn unit(
        &mut self,
        host: &Host,
        process: &Process,
        deadline: Instant,
        gaps: &mut Vec<Gap>,
    ) -> Option<Supervisor> {
        let by_hand = process.session.is_some() || process.container.is_some();
        let unit = process.unit.as_ref().filter(|_| !by_hand && systemd::is_running(host))?;
        let mut supervisor =
            Supervisor { name: Some(unit.clone()), ..Supervisor::bare(SupervisorKind::Systemd) };
        if is_service(unit) {
            match self.service(host, process.unit_owner, unit, deadline) {
                Ok(service) => {
                    fill_in(&mut supervisor, service, process.started);
                    let is_main = supervisor.main_pid == Some(process.pid);
                    supervisor.others =
                        (!is_main).then(|| others(host, process, deadline)).flatten();
                }
                Err(why) => {
                    add_once(gaps, Fact::Supervisor, why);
                    // In a healthy unit the main process is an ancestor of all others.
                    supervisor.others = others(host, process, deadline);
                }
            }
        }
        Some(supervisor)
    }

    fn service(
        &mut self,
        host: &Host,
        owner: Option<u32>,
        unit: &str,
        deadline: Instant,
    ) -> Result<Service, Failure> {
        let key = (owner, unit.to_owned());
        if let Some(service) = self.services.recall(&key) {
            return service;
        }
        if let Some(why) = self.silent.recall(&owner) {
            return Err(why);
        }
        has_time(deadline)?;
        let service = systemd::service(host, owner, unit, deadline);
        let service = self.note_silence(owner, service);
        self.services.remember(key, service.clone());
        service
    }

    /// Records that a manager cannot be reached, so that it is not asked about the next unit
    /// either.
    fn note_silence<T>(
        &mut self,
        owner: Option<u32>,
        answer: Result<T, Failure>,
    ) -> Result<T, Failure> {
        answer.inspect_err(|failure| match failure {
            Failure::NoTime | Failure::Refused { .. } | Failure::Denied { .. } => {}
            Failure::Unreachable { .. } | Failure::Silent(_) | Failure::Broken { .. } => {
                self.silent.remember(owner, failure.clone());
            }
        })
    }
}

/// Fills in what systemd says about a unit. An answer from before the process started is about
/// another run of the unit.
fn fill_in(supervisor: &mut Supervisor, service: Service, started: Option<Timestamp>) {
    supervisor.pid = service.manager;
    supervisor.restart = Some(service.restart);
    supervisor.restarts = service.restarts;
    if started.is_some_and(|started| service.asked < started) {
        return;
    }
    let Run { main_pid, control_pid, state, result, exit } = service.run;
    supervisor.main_pid = main_pid;
    supervisor.control_pid = control_pid;
    supervisor.state = state;
    supervisor.result = result;
    (supervisor.exit_code, supervisor.exit_status) = exit.unzip();
}

/// Returns the number of processes in the control group of a process that are neither its
/// ancestors nor its descendants, or `None` if there are too many to check in time, or the
/// group is unknown.
fn others(host: &Host, process: &Process, deadline: Instant) -> Option<u32> {
    let path = process.cgroup.as_ref()?.path.as_deref()?;
    let members = cgroups::members(host, cgroups::id_of(host, path)?);
    let above = processes::line(host, process.ppid);
    // Workers of one program, each with a socket of its own.
    let is_sibling = |pid: u32| {
        processes::parent_of(host, pid).is_some_and(|it| {
            Some(it.ppid) == process.ppid && Some(&it.comm) == process.comm.as_ref()
        })
    };
    // Its own group contains it. An empty list means that there were too many to list.
    if !members.contains(&process.pid) {
        return None;
    }
    let mut others = 0;
    for &pid in members.iter().filter(|pid| **pid != process.pid && !above.contains(pid)) {
        if Instant::now() > deadline {
            return None;
        }
        let is_below = processes::line(host, Some(pid)).contains(&process.pid);
        others += u32::from(!is_sibling(pid) && !is_below);
    }
    Some(others)
}

/// Returns whether a shell has started one of the processes `before`: it was the parent of that
/// process, and is not a later process with the same pid.
fn was_seen(shell: &Shell, process: &Process, before: &[&Process]) -> bool {
    let pid = shell.supervisor.pid;
    let is_older = |than: &Process| match (shell.started, than.started) {
        (Some(shell), Some(than)) => shell <= than,
        _ => false,
    };
    pid.is_some()
        && process.ppid == pid
        && before.iter().any(|one| one.pid != process.pid && one.ppid == pid && is_older(one))
}

fn has_time(deadline: Instant) -> Result<(), Failure> {
    if Instant::now() + SHORTEST < deadline { Ok(()) } else { Err(Failure::NoTime) }
}

fn is_service(unit: &str) -> bool {
    unit.ends_with(".service")
}

/// Returns whether a process binds ports for `.socket` units: systemd, or the child that it
/// forks for a unit with a network namespace of its own.
fn listens_for_units(process: &Process) -> bool {
    process.pid == 1 || roles::of(process, process) == Some(Role::SystemdChild)
}

/// Adds a gap, unless there is one for the same fact.
fn add_once(gaps: &mut Vec<Gap>, what: Fact, why: impl fmt::Display) {
    if !gaps.iter().any(|gap| gap.what == what) {
        gaps.push(Gap::new(what, why.to_string()));
    }
}

/// Answers that are cached for a moment.
struct Remembered<K, V>(HashMap<K, (Instant, V)>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + std::hash::Hash, V: Clone> Remembered<K, V> {
    fn recall(&self, key: &K) -> Option<V> {
        let (at, value) = self.0.get(key)?;
        (at.elapsed() < BELIEVED).then(|| value.clone())
    }

    fn remember(&mut self, key: K, value: V) {
        if self.0.len() >= MOST_REMEMBERED {
            self.0.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        if self.0.len() < MOST_REMEMBERED {
            self.0.insert(key, (Instant::now(), value));
        }
    }
}

/// The most characters of a name that comes from outside.
const LONGEST_NAME: usize = 128;

/// Returns the beginning of a text that comes from outside.
fn cut(text: &str) -> String {
    text.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests;
