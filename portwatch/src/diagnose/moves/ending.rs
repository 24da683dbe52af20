//! Ending processes that nobody manages: by a signal that they react to, all that keep the
//! socket open at once, and nothing else.

use crate::{
    diagnose::{
        Move, Risk,
        case::Case,
        moves::{command, look},
        responsibility::{self, Responsible},
        words,
    },
    evidence::{Process, ProcessState, Sigterm},
};

/// Processes that one command ends.
const MOST: usize = 32;

/// Ends `holder`, and with it the others that keep the socket open and that nobody manages,
/// because of `why`.
pub fn end(case: &Case, holder: &Process, why: &str) -> Move {
    // The first process is nobody's to end, and 0 would be the whole group of whoever pastes it.
    if holder.pid <= 1 {
        return look(case);
    }
    let ended = together(case, holder);
    let pids = words::list(ended.iter().map(|process| process.pid.to_string()), " ");
    let one = ended.len() == 1;
    let (it, its) = if one { ("it", "") } else { ("each", "; they share the socket") };
    let is = |state| ended.iter().any(|process| process.state == Some(state));
    let does = |what| ended.iter().any(|process| process.sigterm == Some(what));
    let term = format!("kill {pids}");
    if does(Sigterm::Ignored) {
        return command(
            format!("kill -KILL {pids}"),
            format!("{why}{its}; it ignores SIGTERM, so only SIGKILL ends it, without cleaning up"),
            Risk::Destructive,
        );
    }
    if is(ProcessState::Stopped) {
        let stopped = ended.iter().filter(|one| one.state == Some(ProcessState::Stopped));
        let stopped = words::list(stopped.map(|process| process.pid.to_string()), " ");
        return command(
            format!("{term}; kill -CONT {stopped}"),
            format!(
                "{why}{its}; it is stopped (Ctrl-Z or SIGSTOP) and reacts to SIGTERM only when it \
                 continues"
            ),
            Risk::Interrupts,
        );
    }
    if does(Sigterm::Blocked) {
        return command(
            format!("{term}; sleep 5; ! kill -0 {pids} 2>/dev/null || kill -KILL {pids}"),
            format!(
                "{why}{its}; it blocks SIGTERM, so this sends SIGKILL if it still runs after 5 seconds"
            ),
            Risk::Destructive,
        );
    }
    let then = if is(ProcessState::DiskSleep) {
        "it waits in the kernel (state D), so no signal ends it before that is over".to_owned()
    } else if is(ProcessState::Traced) {
        "a debugger has stopped it: quit the debugger as well".to_owned()
    } else {
        format!("TERM lets {it} exit cleanly")
    };
    command(term, format!("{why}{its}; {then}"), Risk::Interrupts)
}

/// The processes to end so that the socket is closed: of those that have it open and that
/// nobody manages, the ones whose parent is not among them. A server's master ends its workers;
/// workers without a master are ended one by one.
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
    let is_below = |one: &Process| {
        holders.iter().any(|other| one.ppid == Some(other.pid) && one.pid != other.pid)
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
