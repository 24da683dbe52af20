//! Is it safe to stop the holder? Answered by evidence, as one would at the
//! terminal: which release it is, who started it, who manages it, and whether it
//! is in use.

use crate::{
    diagnose::{HolderClass, Judgement, SafeToStop, case::Case, holder, program, words},
    evidence::{Fact, Gap, Process, State, SupervisorKind},
};

/// Weighs what is known; `None` where there is no process to stop.
pub fn of(case: &Case, class: HolderClass, holder: Option<&Process>) -> Option<Judgement> {
    let holder = holder?;
    let mut pro = Vec::new();
    let mut contra = Vec::new();
    match class {
        HolderClass::Itself if holder.pid == case.process().pid => {
            contra.push("it is the failing process itself".to_owned());
        }
        HolderClass::Itself if holder.ppid == Some(case.process().pid) => {
            contra.push("it is a child of the failing process".to_owned());
        }
        HolderClass::Itself => {
            contra.push("it is a parent of the failing process, which would end too".to_owned());
        }
        HolderClass::OtherService if case.evidence.is_untried() => {
            contra.push(match &holder.unit {
                Some(unit) => format!("it is a service ({unit}), with users of its own"),
                None => "it may have users of its own".to_owned(),
            });
        }
        HolderClass::OtherService => contra.push(match &holder.unit {
            Some(unit) => format!("it is another service ({unit}), with users of its own"),
            None => "it is another program, with users of its own".to_owned(),
        }),
        HolderClass::ContainerProxy => {
            contra.push(
                "it only stands for a container: stopping it frees nothing for long".to_owned(),
            );
        }
        HolderClass::KubeProxy => {
            contra.push("it serves the Services of the whole node".to_owned())
        }
        HolderClass::SocketUnit => contra.push("systemd itself holds it, for a unit".to_owned()),
        HolderClass::CoreDumping => {
            contra.push("it ends by itself when its core is written".to_owned())
        }
        HolderClass::Inherited => {
            pro.push("its program has nothing to do with the port".to_owned());
        }
        HolderClass::Restarted => {
            contra.push("it was started moments ago, and would be again".to_owned());
        }
        _ => {}
    }
    let same_program = program::same(holder, case.process()) == Some(true);
    if same_program {
        of_the_program(case, holder, &mut pro, &mut contra);
    }
    of_its_start(case, holder, &mut pro, &mut contra);
    // By itself this says little: the one that works may be the older one.
    let strong = !pro.is_empty();
    pro.extend(older(case, holder).filter(|_| same_program));
    let connections = case.evidence.connections.established;
    if connections > 0 && case.first_in(State::Listen).is_some() {
        let are = if connections == 1 { "connection is" } else { "connections are" };
        let at_least = Gap::at_least(&case.evidence.gaps, &Fact::Connections);
        contra.push(format!("{at_least}{connections} established {are} on the port now"));
    }
    let safe_to_stop = match class {
        HolderClass::OtherService if case.evidence.is_untried() => SafeToStop::Check,
        HolderClass::Itself
        | HolderClass::OtherService
        | HolderClass::ContainerProxy
        | HolderClass::KubeProxy
        | HolderClass::SocketUnit => SafeToStop::No,
        _ if contra.is_empty() && strong => SafeToStop::Likely,
        _ => SafeToStop::Check,
    };
    Some(Judgement { safe_to_stop, pro, contra })
}

/// Which release of the same program it is.
fn of_the_program(case: &Case, holder: &Process, pro: &mut Vec<String>, contra: &mut Vec<String>) {
    if holder.exe.as_deref().is_some_and(|exe| exe.ends_with(" (deleted)")) {
        pro.push("its executable was deleted or replaced: a release before this one".to_owned());
    }
    match program::versions(holder, case.process()) {
        Some((theirs, ours)) if program::is_newer(theirs, ours) => {
            contra.push(format!("it runs the newer {theirs}, the failing program is {ours}"));
        }
        Some((theirs, ours)) => {
            pro.push(format!("it runs {theirs}, the failing program is {ours}"));
        }
        None => {}
    }
}

fn older(case: &Case, holder: &Process) -> Option<String> {
    let (theirs, ours) = (holder.started?, case.process().started?);
    let age = words::age(theirs, ours).filter(|_| theirs < ours)?;
    Some(format!("it is the same program, started {age} before this one"))
}

/// Who started it, and who would start it again.
fn of_its_start(case: &Case, holder: &Process, pro: &mut Vec<String>, contra: &mut Vec<String>) {
    let managed = (holder.unit.is_some() && holder.session.is_none()) || holder.container.is_some();
    if let Some(session) = &holder.session {
        let user = holder.session_user.as_ref().or(holder.user.as_ref());
        let user = user.map(|user| format!(" of {user}")).unwrap_or_default();
        let tty = holder.tty.as_ref().map(|tty| format!(" on {tty}")).unwrap_or_default();
        pro.push(format!(
            "no service manager runs it, it is in login session {session}{user}{tty}"
        ));
    } else if !managed && holder.ppid == Some(1) && on_systemd(case, holder) {
        pro.push("its parent is gone (ppid 1) and no unit manages it: an orphan".to_owned());
    }
    if let Some(supervisor) = holder::restarter(case.evidence, holder) {
        let name = supervisor.name.as_deref().unwrap_or("it");
        contra.push(match (supervisor.kind, supervisor.restart.as_deref()) {
            (SupervisorKind::Systemd, policy) => format!(
                "systemd starts {name} again when it dies (Restart={}): stop the unit, not the \
                 process",
                policy.unwrap_or("yes")
            ),
            (SupervisorKind::Shell, _) => "a shell starts it again in a loop".to_owned(),
            (kind, _) => {
                format!("{} starts {name} again when it dies: stop it there", supervisor_name(kind))
            }
        });
    }
}

/// Whether units are what processes of this machine are in: elsewhere every healthy
/// service has pid 1 for its parent and no unit.
fn on_systemd(case: &Case, holder: &Process) -> bool {
    let path_known = holder.cgroup.as_ref().is_some_and(|cgroup| cgroup.path.is_some());
    let failing = case.process();
    path_known && (failing.unit.is_some() || failing.session.is_some())
}

fn supervisor_name(kind: SupervisorKind) -> &'static str {
    match kind {
        SupervisorKind::Systemd => "systemd",
        SupervisorKind::Supervisord => "supervisord",
        SupervisorKind::Pm2 => "pm2",
        SupervisorKind::Runit => "runit",
        SupervisorKind::S6 => "s6",
        SupervisorKind::Shell => "a shell",
    }
}
