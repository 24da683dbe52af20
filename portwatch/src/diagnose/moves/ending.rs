//! Ends processes that no manager is responsible for: with a signal that they react to, and all
//! processes that still have the socket open at once, but no others.

use crate::{
    diagnose::{
        Move, Risk,
        act::Act,
        case::Case,
        moves::{action, look},
        responsibility::{self, Responsible},
        words,
    },
    evidence::{Process, ProcessState, Sigterm},
};

/// The most processes that one command ends.
const MOST: usize = 32;

/// Ends `holder` because of `why`, and with it the other processes that still have the socket
/// open and that no manager is responsible for.
pub fn end(case: &Case, holder: &Process, why: &str) -> Move {
    // Nobody may end the first process. Pid 0 would mean the whole process group of the user
    // who pastes the command.
    if holder.pid <= 1 {
        return look(case);
    }
    let ended = together(case, holder);
    let pids = |of: &dyn Fn(&Process) -> bool| {
        let of = ended.iter().filter(|process| of(process));
        Some(words::list(of.map(|process| process.pid.to_string()), " "))
            .filter(|it| !it.is_empty())
    };
    let ignores = |process: &Process| process.sigterm == Some(Sigterm::Ignored);
    let blocks = |process: &Process| process.sigterm == Some(Sigterm::Blocked);
    let is = |state| move |process: &Process| process.state == Some(state);
    // Each process gets the signal that it reacts to.
    let (ignoring, blocking) = (pids(&ignores), pids(&blocks));
    let stopped = pids(&|process| is(ProcessState::Stopped)(process) && !ignores(process));
    let steps = [
        pids(&|process| !ignores(process)).map(|pids| format!("kill {pids}")),
        stopped.as_ref().map(|pids| format!("kill -CONT {pids}")),
        ignoring.as_ref().map(|pids| format!("kill -KILL {pids}")),
        blocking.as_ref().map(|pids| format!("sleep 5; kill -KILL {pids} 2>/dev/null || :")),
    ];
    let reasons = [
        stopped.is_some().then_some(
            "it is stopped (Ctrl-Z or SIGSTOP) and reacts to SIGTERM only when it continues",
        ),
        ignoring
            .is_some()
            .then_some("it ignores SIGTERM, so only SIGKILL ends it, without cleaning up"),
        blocking
            .is_some()
            .then_some("it blocks SIGTERM, so this sends SIGKILL if it still runs after 5 seconds"),
        pids(&is(ProcessState::DiskSleep)).and(Some(
            "it waits in the kernel (state D), so no signal ends it before that is over",
        )),
        pids(&is(ProcessState::Traced))
            .and(Some("a debugger has stopped it: quit the debugger as well")),
    ];
    let together = if ended.len() == 1 { "" } else { "; they share the socket" };
    let mut reasons = words::list(reasons.into_iter().flatten().map(str::to_owned), "; ");
    if reasons.is_empty() {
        let it = if ended.len() == 1 { "it" } else { "each" };
        reasons = format!("TERM lets {it} exit cleanly");
    }
    let kills = ignoring.is_some() || blocking.is_some();
    action(
        words::list(steps.into_iter().flatten(), "; "),
        format!("{why}{together}; {reasons}"),
        if kills { Risk::Destructive } else { Risk::Interrupts },
        Act::End(ended.into_iter().cloned().collect()),
    )
}

/// Returns the processes to end so that the socket is closed: of the processes that have it
/// open and that no manager is responsible for, those whose parent is not among them. The main
/// process of a server ends its workers when it handles the signal. Other workers are ended one
/// by one.
fn together<'a>(case: &Case<'a>, holder: &'a Process) -> Vec<&'a Process> {
    let Some(culprit) = case.first() else { return vec![holder] };
    let holders = &culprit.socket.holders;
    if !holders.iter().any(|other| other.pid == holder.pid) {
        return vec![holder];
    }
    let failing = case.process();
    let is_own = |other: &Process| {
        !case.evidence.is_untried()
            && (other.pid == failing.pid || failing.ancestors.contains(&other.pid))
    };
    let unmanaged = |other: &Process| {
        matches!(responsibility::of(case.evidence, other), Responsible::Nobody(_))
    };
    // A parent without a handler exits without a message to its children, which still have the
    // socket open.
    let ends_them =
        |parent: &Process| !matches!(parent.sigterm, Some(Sigterm::Default | Sigterm::Ignored));
    let is_below = |one: &Process| {
        let is_parent = |other: &&Process| one.ppid == Some(other.pid) && one.pid != other.pid;
        holders.iter().find(is_parent).is_some_and(ends_them)
    };
    let mut ended = vec![holder];
    let rest = holders.iter().filter(|other| {
        other.pid != holder.pid
            && other.pid > 1
            && !is_below(other)
            && other.uid == holder.uid
            && !is_own(other)
            && unmanaged(other)
    });
    ended.extend(rest.take(MOST - 1));
    ended
}
