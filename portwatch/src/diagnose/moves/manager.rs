//! Ends a process through the manager that is responsible for it. A supervisor restarts what it
//! did not stop itself, so what it keeps running is stopped through the supervisor. A process
//! that no manager is responsible for is ended directly, never the unit that it happens to be
//! in.

use crate::{
    diagnose::{
        Move, Risk,
        act::Act,
        case::Case,
        moves::{action, command, ending::end, look_at, quote},
        responsibility::{self, Place, Responsible},
        workloads,
    },
    evidence::{Process, Supervisor},
    units::Machine,
};

/// Returns the actions that end a process, because of `why`: the first command, and what else
/// is needed.
pub fn stop(case: &Case, holder: &Process, why: &str) -> Vec<Move> {
    match responsibility::of(case.evidence, holder) {
        Responsible::Engine => match workloads::around(holder, why) {
            Some(step) => vec![step],
            None => vec![status(holder, why)],
        },
        Responsible::Job { by, child } => job(case, holder, by, child, why),
        Responsible::Unit(unit) => vec![by_unit(case, holder, unit, why)],
        Responsible::Machine(machine) => vec![by_machine(&machine, why)],
        Responsible::Loop(Supervisor { pid: Some(shell @ 2..), name, .. }) if holder.pid > 1 => {
            vec![action(
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
                Act::EndLoop { shell: *shell, process: Box::new(holder.clone()) },
            )]
        }
        Responsible::Loop(_) => vec![end(case, holder, why)],
        Responsible::Nobody(place) => match responsibility::carries(holder) {
            Some(what) => vec![
                look_at(holder, &format!("ending it ends {what}, which somebody may use")),
                end(case, holder, &format!("{why}; this ends {what}")),
            ],
            None => vec![end(case, holder, &format!("{why}; {}", told(place)))],
        },
        Responsible::Unknown => vec![status(holder, why)],
    }
}

fn status(holder: &Process, why: &str) -> Move {
    command(
        format!("systemctl status {}", holder.pid),
        format!(
            "{why}; what manages it is not known: this shows its unit, if it has one; stop that"
        ),
        Risk::None,
    )
}

/// Returns the reason why the process itself is ended.
fn told(place: Place) -> String {
    match place {
        Place::Launched { by, unit } => {
            format!("{} started it, and {unit} is not its service: end the process only", by.what)
        }
        Place::Session => "it runs in a login session, and nothing restarts it".to_owned(),
        Place::NoUnit => "no unit or container manages it".to_owned(),
        Place::Terminal => "it was started in a terminal, and nothing restarts it".to_owned(),
        Place::Application(name) => format!(
            "it was started from the application {name}: end the process only, since its unit has \
             the whole application"
        ),
        Place::Scope(unit) => {
            format!("{unit} only groups processes and restarts nothing: end the process only")
        }
    }
}

fn in_brackets(name: &str) -> String {
    format!(" ({name})")
}

/// Stops a job of a supervisor by the supervisor's own command, and then what the job has
/// started and left running.
fn job(case: &Case, holder: &Process, by: &Supervisor, child: bool, why: &str) -> Vec<Move> {
    let (Some(spec), Some(name)) = (by.kind.spec(), by.name.as_deref()) else {
        return vec![status(holder, why)];
    };
    let config = match (spec.config.first(), by.config.as_deref()) {
        (Some(option), Some(path)) => format!(" {option} {}", quote(path)),
        _ => String::new(),
    };
    let home = match (spec.home, by.config.as_deref()) {
        (Some((variable, _)), Some(path)) => format!("env {variable}={} ", quote(path)),
        _ => String::new(),
    };
    let (program, verb) = spec.stop;
    let stop = format!("{home}{program}{config} {verb} {}", quote(name));
    // The supervisor of a user is called as that user: root's has other jobs, maybe with the
    // same name.
    let stop = if spec.per_user || by.uid.is_some() {
        let Some(stop) = as_user(by.uid.or(holder.uid), holder, &stop) else {
            return vec![status(holder, why)];
        };
        stop
    } else {
        stop
    };
    let why_job = format!("{why}; {} manages it and would restart it after a kill", by.kind);
    let mut moves = vec![action(stop, why_job, Risk::Interrupts, Act::Command)];
    if !child {
        moves.push(end(
            case,
            holder,
            &format!(
                "then, if it still runs: {} ends only the program that it started itself, not what \
                 that has started",
                by.kind
            ),
        ));
    }
    moves
}

/// Returns a command that runs as this user, whose name is that of the process if it is its user;
/// `None` if the user is not known. Configurations and directories of a user are that user's words:
/// root must never act on them. Users of a directory service, of a service manager (DynamicUser=)
/// and of a user namespace have no name in /etc/passwd; their group has mostly the same number.
pub fn as_user(uid: Option<u32>, process: &Process, what: &str) -> Option<String> {
    let uid = uid?;
    Some(match process.user.as_deref().filter(|_| process.uid == Some(uid)) {
        _ if uid == 0 => what.to_owned(),
        Some(user) => format!("runuser -u {} -- {what}", quote(user)),
        None => format!("setpriv --reuid={uid} --regid={uid} --clear-groups -- {what}"),
    })
}

/// Shows a virtual machine, or a container with a system of its own. Its manager would stop all
/// of it, so the first command only shows it.
fn by_machine(machine: &Machine, why: &str) -> Move {
    let (show, stop, what) = match machine {
        Machine::Libvirt(name) => {
            let name = quote(name);
            (format!("virsh dominfo {name}"), format!("virsh shutdown {name}"), "virtual machine")
        }
        Machine::Machined(name) => {
            let name = quote(name);
            (format!("machinectl status {name}"), format!("machinectl poweroff {name}"), "machine")
        }
        Machine::Proxmox(number) => {
            (format!("qm status {number}"), format!("qm shutdown {number}"), "virtual machine")
        }
    };
    command(
        show,
        format!(
            "{why}; it belongs to a {what}, which this shows: remove the port from its \
             configuration, or stop all of it ({stop})"
        ),
        Risk::None,
    )
}

/// Stops the unit where that ends no more than what has the port open, otherwise the process.
fn by_unit(case: &Case, holder: &Process, unit: &str, why: &str) -> Move {
    let failing = case.process();
    let shared = failing.unit.as_deref() == Some(unit) && failing.unit_owner == holder.unit_owner;
    if shared && !case.evidence.is_untried() {
        let known = holder.supervisor.as_ref().and_then(|known| known.main_pid);
        let beside = match known {
            Some(main) if main != holder.pid && holder.ppid != Some(main) => {
                format!(" (it is a leftover there: the main process is {main})")
            }
            _ => String::new(),
        };
        return end(
            case,
            holder,
            &format!(
                "{why}; end the process only: stopping {unit} would stop the failing program \
                 too{beside}"
            ),
        );
    }
    let known = holder.supervisor.as_ref();
    if matches!(known.and_then(|known| known.state.as_deref()), Some("inactive" | "failed")) {
        return end(
            case,
            holder,
            &format!("{why}; end the process only: {unit} is stopped, and this is left of it"),
        );
    }
    if let Some(others @ 1..) = known.and_then(|known| known.others) {
        let others = match others {
            1 => "another process".to_owned(),
            more => format!("{more} other processes"),
        };
        let why = format!(
            "{why}; end the process only: {unit} also runs {others}, which stopping it would end too"
        );
        return end(case, holder, &why);
    }
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
    action(
        format!("{} stop {}", systemctl(holder), name(unit)),
        format!("{why}; {lasts}"),
        Risk::Interrupts,
        Act::StopUnits { owner: holder.unit_owner, units: vec![unit.to_owned()] },
    )
}

/// Returns a unit's name as an argument. A name that could be read as an option comes after
/// `--`.
fn name(unit: &str) -> String {
    if unit.starts_with('-') { format!("-- {}", quote(unit)) } else { quote(unit) }
}

/// Returns the command that addresses the manager of the process's unit.
pub fn systemctl(process: &Process) -> String {
    match (process.unit_owner, &process.user) {
        (None, _) => "systemctl".to_owned(),
        // A process of root in a user's unit belongs to that user's manager.
        (Some(uid), Some(user)) if process.uid == Some(uid) => {
            format!("systemctl --user --machine={}@", quote(user))
        }
        (Some(uid), _) => format!("systemctl --user --machine={uid}@"),
    }
}
