//! What would take a port back: the actions that the diagnosis suggests, and whether they may
//! be done without a person. Pure.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    diagnose::{Diagnosis, HolderClass, Judgement, Move, SafeToStop, act::Act, words},
    evidence::{Connections, Fact, Gap, Process, ProcessState, Protocol, Sigterm, Socket, State},
    explain::{Explanation, Outcome},
};

/// What is to be done about one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: a bind would succeed.
    Free,
    /// Nothing but to wait: only connections that no process has open block the bind.
    Wait,
    /// Processes are to be ended.
    Act(Box<Proposal>),
    /// Nothing that this program would do.
    Refuse(Refusal),
}

/// Processes are to be ended, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The steps, in order. Those after the first are for what the one before has left.
    pub steps: Vec<Step>,
    /// Whether the steps may be done without a person.
    pub consent: Consent,
    /// The reasons for it and against it.
    pub judgement: Option<Judgement>,
    /// What ends, in words.
    pub ends: String,
    /// Why a step may not end what it is for, in words.
    pub obstacles: Vec<String>,
    /// What follows, in words.
    pub follows: Vec<String>,
    /// The inodes of the sockets that the steps close.
    pub inodes: BTreeSet<u64>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The command that does the same, for a shell.
    pub command: String,
    /// What it does.
    pub act: Act,
}

/// Whether an action may be done without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// All evidence is in favour of it: `--yes` is enough.
    Likely,
    /// There is evidence against it: it needs `--even-if-used` as well.
    Check,
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, to be read after "refused: ".
    pub why: String,
    /// What a person could run.
    pub command: Option<String>,
    /// Whether the reason is that this user cannot see who has the port.
    pub denied: bool,
}

/// Makes the plan for one answer of `portwatch explain`. `own` is the process that will carry it
/// out: what would end it as well is refused. SIGKILL is a part of it only if it is to follow
/// SIGTERM after `kill_after`.
pub fn plan(answer: &Explanation, own: &Process, kill_after: Option<Duration>) -> Plan {
    let Some(diagnosis) = &answer.diagnosis else { return Plan::Free };
    if answer.outcome() == Outcome::Passes {
        return Plan::Free;
    }
    let holder = holder(answer, diagnosis);
    if holder.is_none() && nobody_has_any_open(answer, diagnosis) {
        return Plan::Wait;
    }
    let steps = diagnosis.moves.iter().filter_map(|suggested| step(suggested, kill_after));
    let steps: Vec<_> = steps.collect();
    let Some((holder, first)) = holder.zip(steps.first()) else {
        return Plan::Refuse(no_action(answer, diagnosis));
    };
    if let Some(why) = steps.iter().find_map(|step| ends_own(&step.act, holder, own)) {
        let command = Some(first.command.clone());
        return Plan::Refuse(Refusal { why, command, denied: false });
    }
    let Some(consent) = consent(diagnosis, &first.act) else {
        let contra = diagnosis.judgement.as_ref().map(|judgement| judgement.contra.join("; "));
        let why = contra.filter(|why| !why.is_empty());
        let why = why.unwrap_or_else(|| "what holds the port is not to be stopped".to_owned());
        return Plan::Refuse(Refusal { why, command: Some(first.command.clone()), denied: false });
    };
    let closed = |socket: &&Socket| socket.holders.iter().any(|other| other.pid == holder.pid);
    Plan::Act(Box::new(Proposal {
        consent,
        judgement: diagnosis.judgement.clone(),
        ends: ends(&first.act, holder, answer),
        obstacles: match kill_after {
            Some(_) => Vec::new(),
            None => signalled(&first.act).into_iter().filter_map(obstacle).collect(),
        },
        follows: follows(answer, diagnosis, holder),
        inodes: answer.sockets.iter().filter(closed).filter_map(|socket| socket.inode).collect(),
        steps,
    }))
}

/// Returns the process that the diagnosis names.
pub fn holder<'a>(answer: &'a Explanation, diagnosis: &Diagnosis) -> Option<&'a Process> {
    let named = diagnosis.holder.as_ref()?;
    let mut holders = answer.sockets.iter().flat_map(|socket| &socket.holders);
    holders.find(|process| Some(process.pid) == named.pid)
}

/// Whether all sockets that could block are connections that no process has open: the kernel
/// removes them by its own timers.
fn nobody_has_any_open(answer: &Explanation, diagnosis: &Diagnosis) -> bool {
    let by_itself = |state| {
        matches!(
            state,
            State::TimeWait | State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck
        )
    };
    let sockets = &answer.sockets;
    !diagnosis.refused_by.is_empty()
        && (answer.time_wait.count > 0 || !sockets.is_empty())
        && sockets.iter().all(|socket| by_itself(socket.state) && socket.holders.is_empty())
        && !answer.gaps.iter().any(|gap| gap.what == Fact::Holders)
}

fn step(suggested: &Move, kill_after: Option<Duration>) -> Option<Step> {
    let (act, command) = (suggested.act.clone()?, suggested.command.clone()?);
    let command = match &act {
        Act::End(processes) => {
            let stopped = processes.iter().filter(|it| it.state == Some(ProcessState::Stopped));
            signals(
                &pids(processes.iter().map(|process| process.pid)),
                &pids(stopped.map(|process| process.pid)),
                kill_after,
            )
        }
        Act::EndLoop { shell, process } => signals(&pids([*shell, process.pid]), "", kill_after),
        Act::StopUnits { .. } | Act::StopContainer { .. } | Act::Command => command,
    };
    Some(Step { command, act })
}

/// What the diagnosis suggests may send SIGKILL. This program does so only if it was asked to.
fn signals(all: &str, stopped: &str, kill_after: Option<Duration>) -> String {
    let go_on = if stopped.is_empty() { String::new() } else { format!("; kill -CONT {stopped}") };
    let kill = kill_after
        .map(|after| format!("; sleep {}; kill -KILL {all} 2>/dev/null || :", after.as_secs_f64()));
    format!("kill {all}{go_on}{}", kill.unwrap_or_default())
}

fn pids(pids: impl IntoIterator<Item = u32>) -> String {
    words::list(pids.into_iter().map(|pid| pid.to_string()), " ")
}

/// The processes that get a signal because of what the evidence says about them.
fn signalled(act: &Act) -> Vec<&Process> {
    match act {
        Act::End(processes) => processes.iter().collect(),
        Act::EndLoop { process, .. } => vec![process],
        Act::StopUnits { .. } | Act::StopContainer { .. } | Act::Command => Vec::new(),
    }
}

/// Why SIGTERM may not end a process.
fn obstacle(process: &Process) -> Option<String> {
    let does = match process.sigterm? {
        Sigterm::Ignored => "ignores SIGTERM: only --kill-after 10s ends it",
        Sigterm::Blocked => "blocks SIGTERM: it may not exit without --kill-after 10s",
        Sigterm::Default | Sigterm::Caught => return None,
    };
    Some(format!("{} {does}", words::process(process)))
}

/// Why an action would end this command as well; `None` if it would not.
fn ends_own(act: &Act, holder: &Process, own: &Process) -> Option<String> {
    let is_own = |pid: u32| pid == own.pid || own.ancestors.contains(&pid);
    let named = |process: &Process| format!("{} started this command", words::process(process));
    match act {
        Act::End(processes) => processes.iter().find(|process| is_own(process.pid)).map(named),
        Act::EndLoop { shell, .. } if is_own(*shell) => {
            Some(format!("the shell {shell}, which restarts it, started this command"))
        }
        Act::EndLoop { process, .. } => is_own(process.pid).then(|| named(process)),
        Act::StopUnits { owner, units } => {
            let runs_in =
                |unit: &&String| own.unit.as_ref() == Some(*unit) && own.unit_owner == *owner;
            let unit = units.iter().find(runs_in)?;
            Some(format!("this command runs in {unit} as well"))
        }
        Act::StopContainer { .. } => {
            let same = holder.container.is_some() && holder.container == own.container;
            same.then(|| "this command runs in that container as well".to_owned())
        }
        Act::Command => is_own(holder.pid).then(|| named(holder)),
    }
}

/// Whether the first step may be done; `None` if it may not.
fn consent(diagnosis: &Diagnosis, act: &Act) -> Option<Consent> {
    let class = diagnosis.holder.as_ref().map(|holder| holder.class);
    let safe = diagnosis.judgement.as_ref().map(|judgement| judgement.safe_to_stop);
    match (class, act, safe) {
        // The judgement is about the process, which only stands in for somebody. That one is
        // stopped, not the process.
        (Some(HolderClass::SocketUnit), Act::StopUnits { .. }, _)
        | (Some(HolderClass::ContainerProxy), Act::StopContainer { .. }, _) => Some(Consent::Check),
        (_, _, Some(SafeToStop::Likely)) => Some(Consent::Likely),
        (_, _, Some(SafeToStop::Check)) => Some(Consent::Check),
        (_, _, Some(SafeToStop::No) | None) => None,
    }
}

/// Why there is nothing to do, and what a person could run.
fn no_action(answer: &Explanation, diagnosis: &Diagnosis) -> Refusal {
    let denied = answer.gaps.iter().any(|gap| gap.denied && gap.what == Fact::Holders);
    let class = diagnosis.holder.as_ref().map(|holder| holder.class);
    let why = match class {
        _ if denied => "only root can see which process has the socket open",
        Some(HolderClass::KernelSocket) => "the kernel itself uses the port",
        Some(HolderClass::KubeProxy) => "kube-proxy has the port open for a Service",
        Some(HolderClass::SocketUnit) => "systemd has the port open for a unit that is not known",
        Some(HolderClass::AppDaemon) => {
            "the port is open for one of a daemon's programs, and which one is not known"
        }
        Some(HolderClass::ContainerProxy) => {
            "the port is open for a container, and which one is not known"
        }
        Some(HolderClass::CoreDumping) => {
            "the holder exits by itself when its core dump is written"
        }
        Some(HolderClass::Itself) => "the holder is this program or an ancestor of it",
        None | Some(HolderClass::Unknown) => "who has the port open is not known",
        Some(_) => "nothing that is known here would stop the holder and nothing else",
    };
    let command = diagnosis.moves.iter().find_map(|step| step.command.clone());
    Refusal { why: why.to_owned(), command, denied }
}

/// `java[31550] and java[31551]; 12 established connections on the port now`.
fn ends(act: &Act, holder: &Process, answer: &Explanation) -> String {
    let process = |process: &Process| words::process(process).to_string();
    let what = match act {
        Act::End(processes) => words::list(processes.iter().map(process), ", "),
        Act::EndLoop { shell, process: child } => {
            format!("the shell {shell} that restarts it, and {}", process(child))
        }
        Act::StopUnits { units, .. } => {
            let others = holder.supervisor.as_ref().and_then(|known| known.others);
            let others = match others.unwrap_or(0) {
                0 => String::new(),
                1 => " and another process".to_owned(),
                more => format!(" and {more} other processes"),
            };
            format!("{} with {}{others}", units.join(", "), process(holder))
        }
        Act::StopContainer { engine, container, .. } => {
            let known = holder.workload.as_ref().and_then(words::workload);
            let known = known.unwrap_or_else(|| {
                format!("container {} of {}", words::short_id(container), engine.spec().name)
            });
            format!("all of {known}")
        }
        Act::Command => format!("the job of {}", process(holder)),
    };
    let connections = match answer.connections.established {
        0 => return what,
        1 => "1 established connection".to_owned(),
        many => format!("{many} established connections"),
    };
    let at_least = Gap::at_least(&answer.gaps, &Fact::Connections);
    format!("{what}; {at_least}{connections} on the port now")
}

/// What stays on the port, and who else blocks it.
fn follows(answer: &Explanation, diagnosis: &Diagnosis, holder: &Process) -> Vec<String> {
    let mut follows = Vec::new();
    let Connections { established, closing } = answer.connections;
    let is_tcp = answer.asked.protocol == Protocol::Tcp;
    let has_it = |socket: &Socket| socket.holders.iter().any(|other| other.pid == holder.pid);
    let nothing_remains = established == 0
        && closing == 0
        && answer.time_wait.count == 0
        && answer.sockets.iter().all(has_it)
        // Every socket on the port was listed.
        && !answer.gaps.iter().any(|gap| gap.what == Fact::Sockets);
    if nothing_remains && is_tcp {
        follows.push(
            "no connections remain: a bind then succeeds, with SO_REUSEADDR or without it"
                .to_owned(),
        );
    }
    if established > 0 && is_tcp {
        follows.push(
            "connections that it closes first stay in TIME-WAIT for 60 s: until then a bind \
             succeeds only with SO_REUSEADDR, if the old listener set it too"
                .to_owned(),
        );
    }
    follows
        .extend(diagnosis.notes.iter().filter(|note| note.starts_with("also blocking")).cloned());
    follows
}

#[cfg(test)]
mod tests;
