//! Ending a process through whoever manages it. A supervisor disbelieves in
//! spontaneous death: what it keeps running is stopped by telling it so.

use crate::{
    diagnose::{
        Move, Risk,
        case::Case,
        holder,
        moves::{command, quote},
        workloads,
    },
    evidence::{Process, Supervisor, SupervisorKind},
};

/// Ends a process, because of `why`.
pub fn stop(case: &Case, holder: &Process, why: &str) -> Move {
    if let Some(step) = workloads::around(holder, why) {
        return step;
    }
    let supervisor = holder::restarter(case.evidence, holder);
    if let Some(step) = supervisor.and_then(|known| by_supervisor(holder, known, why)) {
        return step;
    }
    if let Some(unit) = holder.unit.as_deref().filter(|_| holder.session.is_none()) {
        return by_unit(case, holder, unit, why);
    }
    if holder.cgroup.as_ref().is_none_or(|cgroup| cgroup.path.is_none()) {
        return command(
            format!("systemctl status {}", holder.pid),
            format!(
                "{why}; what manages it is not known: this shows its unit, if it has one; stop that"
            ),
            Risk::None,
        );
    }
    match supervisor.filter(|known| known.kind == SupervisorKind::Shell) {
        Some(Supervisor { pid: Some(shell), name, .. }) => command(
            format!("kill {shell} {}", holder.pid),
            format!(
                "{why}; a shell keeps restarting it{}: this ends the shell first, or it would be \
                 back at once",
                name.as_deref()
                    .filter(|name| !name.is_empty())
                    .map(in_brackets)
                    .unwrap_or_default()
            ),
            Risk::Interrupts,
        ),
        _ => command(
            format!("kill {}", holder.pid),
            format!("{why}; no unit or container manages it; TERM lets it exit cleanly"),
            Risk::Interrupts,
        ),
    }
}

fn in_brackets(name: &str) -> String {
    format!(" ({name})")
}

/// A program that is made for keeping others running, told by its own command;
/// `None` for systemd and shells, and where the name that it goes by there is
/// not known.
fn by_supervisor(holder: &Process, supervisor: &Supervisor, why: &str) -> Option<Move> {
    let spec = supervisor.kind.spec()?;
    let stop = format!("{} {}", spec.stop, quote(supervisor.name.as_deref()?));
    // A user's own is told as that user: root's has other jobs, maybe of the same name.
    let by_user = spec.per_user || supervisor.uid.is_some();
    Some(command(
        if by_user { as_user(holder, &stop) } else { stop },
        format!("{why}; {} manages it and would restart it after a kill", supervisor.kind),
        Risk::Interrupts,
    ))
}

fn as_user(holder: &Process, what: &str) -> String {
    match holder.user.as_deref().filter(|_| holder.uid != Some(0)) {
        Some(user) => format!("runuser -u {} -- {what}", quote(user)),
        None => what.to_owned(),
    }
}

fn by_unit(case: &Case, holder: &Process, unit: &str, why: &str) -> Move {
    let failing = case.process();
    let shared = failing.unit.as_deref() == Some(unit) && failing.unit_owner == holder.unit_owner;
    let both =
        if shared { "; this stops everything in the unit, the failing program too" } else { "" };
    let known = holder.supervisor.as_ref();
    let restart = known.and_then(|known| known.restart.as_deref()).filter(|&policy| policy != "no");
    let again = known.and_then(|known| known.restarts).filter(|&restarts| restarts > 0);
    let lasts = match (restart, again) {
        (Some(policy), Some(restarts)) => format!(
            "stop the unit, not the process: with Restart={policy} it comes back (restarted \
             {restarts} times already)"
        ),
        (Some(policy), None) => {
            format!("stop the unit, not the process: with Restart={policy} it comes back")
        }
        _ => "stop the unit, not the process: a killed process may be restarted".to_owned(),
    };
    command(
        format!("{} stop {}", systemctl(holder), name(unit)),
        format!("{why}; {lasts}{both}"),
        Risk::Interrupts,
    )
}

/// A unit's name as an argument: one that could be taken for an option stands
/// behind `--`.
fn name(unit: &str) -> String {
    if unit.starts_with('-') { format!("-- {}", quote(unit)) } else { quote(unit) }
}

/// The command that speaks to the manager of the process's unit.
pub fn systemctl(process: &Process) -> String {
    match (process.unit_owner, &process.user) {
        (None, _) => "systemctl".to_owned(),
        (Some(_), Some(user)) => format!("systemctl --user --machine={}@", quote(user)),
        (Some(uid), None) => format!("systemctl --user --machine={uid}@"),
    }
}
