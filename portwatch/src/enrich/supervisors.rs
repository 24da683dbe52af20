//! What keeps a process running: a supervisor among its parents, its systemd
//! unit, or a shell's loop.

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

/// Answers that are remembered, of each kind.
const MOST_REMEMBERED: usize = 64;
/// How long an answer is believed. A service that fails again and again is one
/// question, and a manager that does not answer is not waited for each time.
const BELIEVED: Duration = Duration::from_secs(2);
/// With less time left than this, systemd is not asked: its silence would say
/// nothing about it. An answer takes one or two milliseconds.
const SHORTEST: Duration = Duration::from_millis(10);
/// Processes that are looked into for one refusal.
const MOST_PROCESSES: usize = 8;

/// Finds out, and remembers for a moment what was found.
#[derive(Default)]
pub struct Supervisors {
    parents: Remembered<(u32, Option<Timestamp>), Parents>,
    services: Remembered<(Option<u32>, String), Result<Service, Failure>>,
    /// The managers that could not be reached, by their user.
    silent: Remembered<Option<u32>, Failure>,
    listeners: Remembered<(), Vec<Listener>>,
}

impl Supervisors {
    /// Fills in `supervisor` for the failing process and for those that hold the
    /// sockets, and `unit` where systemd itself listens for a `.socket` unit, or
    /// is the one that was refused.
    pub fn describe_all(&mut self, host: &Host, evidence: &mut Evidence, deadline: Instant) {
        let Evidence { failure, process: failing, sockets, gaps, .. } = evidence;
        let before = [&evidence.last_holder, &evidence.previous_holder];
        let before: Vec<&Process> = before.into_iter().flatten().map(|it| &it.process).collect();
        let protocol = failure.protocol;
        self.describe(host, failing, &before, deadline, gaps);
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
        // The child that systemd makes is in the control group of its unit.
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

    /// Fills in `process.supervisor`; leaves it `None` where nothing keeps the
    /// process running, and a gap `supervisor` where that could not be found out.
    ///
    /// A program that is made for it comes first, since its jobs are stopped one
    /// by one though all of them are in its own unit. A shell's loop ends with the
    /// service that it is in; a scope starts nothing again, the loop does. A shell without
    /// a loop is only a parent, unless one of those who had the port `before` was its
    /// child as well.
    pub fn describe(
        &mut self,
        host: &Host,
        process: &mut Process,
        before: &[&Process],
        deadline: Instant,
        gaps: &mut Vec<Gap>,
    ) {
        // Whatever starts pid 1 is not to be seen from here.
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

    /// The loaded `.socket` unit that listens on an address; `None` if there is
    /// none, or no systemd.
    ///
    /// # Errors
    /// Why systemd could not be asked.
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

    /// The `.socket` unit for which systemd has just been refused an address. An answer
    /// of before says nothing about it.
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

    /// The unit of a process, if the host's systemd or a user's runs it. A unit
    /// beside a container is the engine's own, or one of a systemd in there.
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
                Err(why) => add_once(gaps, Fact::Supervisor, why),
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

    /// Remembers a manager that cannot be reached, so that it is not asked about
    /// the next unit either.
    fn note_silence<T>(
        &mut self,
        owner: Option<u32>,
        answer: Result<T, Failure>,
    ) -> Result<T, Failure> {
        answer.inspect_err(|failure| match failure {
            Failure::NoTime | Failure::Refused { .. } => {}
            Failure::Unreachable { .. } | Failure::Silent(_) | Failure::Broken { .. } => {
                self.silent.remember(owner, failure.clone());
            }
        })
    }
}

/// Takes over what systemd says of a unit. An answer that was given before the process
/// started is about another run of the unit.
fn fill_in(supervisor: &mut Supervisor, service: Service, started: Option<Timestamp>) {
    supervisor.pid = service.manager;
    supervisor.restart = Some(service.restart);
    supervisor.restarts = service.restarts;
    if started.is_some_and(|started| service.asked < started) {
        return;
    }
    let Run { main_pid, control_pid, result, exit } = service.run;
    supervisor.main_pid = main_pid;
    supervisor.control_pid = control_pid;
    supervisor.result = result;
    (supervisor.exit_code, supervisor.exit_status) = exit.unzip();
}

/// How many processes are in the control group of a process that are neither above it nor
/// below it; `None` if there are too many to look at in time, or the group is not known.
fn others(host: &Host, process: &Process, deadline: Instant) -> Option<u32> {
    let path = process.cgroup.as_ref()?.path.as_deref()?;
    let members = cgroups::members(host, cgroups::id_of(host, path)?);
    let above = processes::line(host, process.ppid);
    // Workers of one program, of which each has a socket of its own.
    let is_sibling = |pid: u32| {
        processes::parent_of(host, pid).is_some_and(|it| {
            Some(it.ppid) == process.ppid && Some(&it.comm) == process.comm.as_ref()
        })
    };
    // Its own group has it; none at all were too many to be listed.
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

/// Whether a shell has started another of these before the process: it was its parent, and
/// is no later process of the same number.
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

/// Whether a process binds ports for `.socket` units: systemd, or the child that
/// it makes for a unit with a network namespace of its own.
fn listens_for_units(process: &Process) -> bool {
    process.pid == 1 || roles::of(process, process) == Some(Role::SystemdChild)
}

/// Adds a gap, unless one for the same fact is there.
fn add_once(gaps: &mut Vec<Gap>, what: Fact, why: impl fmt::Display) {
    if !gaps.iter().any(|gap| gap.what == what) {
        gaps.push(Gap::new(what, why.to_string()));
    }
}

/// Answers that are believed for a moment.
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

/// The most characters of a name that are taken over from outside.
const LONGEST_NAME: usize = 128;

/// The beginning of a text from outside.
fn cut(text: &str) -> String {
    text.chars().take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests;
