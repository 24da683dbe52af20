//! Whether the holder is safe to stop, decided from the evidence as an engineer at the terminal
//! would decide it: which release it is, who started it, who manages it, and whether it is in
//! use.

use crate::{
    diagnose::{
        HolderClass, Judgement, SafeToStop,
        asked::{self, Asked},
        case::Case,
        holder, program,
        responsibility::{self, Place},
        words, workloads,
    },
    evidence::{Fact, Gap, Process, ProcessState, State, SupervisorKind, Voucher},
};

/// Weighs what is known. Returns `None` where there is no process to stop.
pub fn of(case: &Case, class: HolderClass, holder: Option<&Process>) -> Option<Judgement> {
    let holder = holder?;
    let mut pro = Vec::new();
    let mut contra = Vec::new();
    let asked = asked::of(case, class, Some(holder));
    if let Some(Asked::Beside { what, .. }) = asked {
        contra.push(format!("the failing program wants the port only for {what}"));
    }
    match class {
        HolderClass::Itself if holder.pid == case.process().pid => {
            contra.push("it is the failing process itself".to_owned());
        }
        HolderClass::Itself if holder.ppid == Some(case.process().pid) => {
            contra.push("it is a child of the failing process".to_owned());
        }
        HolderClass::Itself => {
            contra.push(
                "it is an ancestor of the failing process, which would be stopped too".to_owned(),
            );
        }
        _ if matches!(asked, Some(Asked::TakesOver { .. })) => {
            contra.push("the failing program was started to take over from it".to_owned());
        }
        _ if matches!(asked, Some(Asked::Shared)) => {
            contra.push("both services start this program, and may share it".to_owned());
        }
        HolderClass::OtherService if case.evidence.is_untried() => {
            contra.push(match responsibility::service(holder) {
                Some(unit) => format!("it is a service ({unit}) that others may use"),
                None => "others may use it".to_owned(),
            });
        }
        HolderClass::OtherService => contra.push(match responsibility::service(holder) {
            Some(unit) => format!("it is another service ({unit}) that others may use"),
            None => "it is another program that others may use".to_owned(),
        }),
        HolderClass::ContainerProxy if workloads::is_left_over(holder) => {
            pro.push("its engine lists no container for which it could hold the port".to_owned());
        }
        HolderClass::ContainerProxy if workloads::serves_several(holder) => {
            contra.push("it has ports open for other containers too".to_owned());
        }
        HolderClass::ContainerProxy => {
            contra.push(
                "it is only the proxy of a container: stopping it does not free the port for long"
                    .to_owned(),
            );
        }
        HolderClass::KubeProxy => contra.push("it serves every Service on the node".to_owned()),
        HolderClass::SocketUnit => {
            contra.push("systemd itself has the socket open, for a unit".to_owned())
        }
        HolderClass::CoreDumping => {
            contra.push("it exits by itself when its core dump is written".to_owned())
        }
        HolderClass::Inherited => {
            pro.push("its program did not bind the port, it inherited the socket".to_owned());
        }
        HolderClass::Received => {
            contra.push("it was sent the socket, and may not even use it".to_owned());
        }
        HolderClass::AppDaemon => {
            contra.push("it runs other programs, which would be stopped too".to_owned());
        }
        HolderClass::Restarted => {
            contra.push("it was restarted moments ago, and would be again".to_owned());
        }
        _ => {}
    }
    let failing = case.process();
    // Between different users a name proves nothing.
    let of_another = !case.evidence.is_untried() && holder.uid != failing.uid;
    // A process that has the port open for others is not the program that they run.
    let for_others = matches!(
        class,
        HolderClass::ContainerProxy
            | HolderClass::KubeProxy
            | HolderClass::SocketUnit
            | HolderClass::AppDaemon
    );
    let same_program = !of_another && !for_others && program::same(holder, failing) == Some(true);
    if same_program {
        of_the_program(case, holder, &mut pro, &mut contra);
    }
    of_its_start(case, holder, &mut pro, &mut contra);
    let could_go = !for_others && !matches!(class, HolderClass::Itself | HolderClass::OtherService);
    if of_another
        && could_go
        && let Some(user) = &holder.user
    {
        contra.push(format!("it runs as another user, {user}"));
    }
    if could_go && !case.evidence.is_untried() {
        contra.extend(somebody_works(holder, failing));
    }
    if let Some(what) = responsibility::carries(holder) {
        contra.push(format!("ending it ends {what}, which somebody may use"));
    }
    // This alone says little: the older instance may be the one that works.
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
        _ if asked.is_some() => SafeToStop::No,
        HolderClass::Itself
        | HolderClass::OtherService
        | HolderClass::KubeProxy
        | HolderClass::SocketUnit => SafeToStop::No,
        // A name that only a user vouches for does not protect its process from other users.
        HolderClass::ContainerProxy | HolderClass::AppDaemon
            if of_another && holder.vouched_by == Some(Voucher::User) =>
        {
            SafeToStop::Check
        }
        HolderClass::ContainerProxy | HolderClass::AppDaemon
            if !workloads::is_left_over(holder) =>
        {
            SafeToStop::No
        }
        _ if contra.is_empty() && strong && !of_another => SafeToStop::Likely,
        _ => SafeToStop::Check,
    };
    Some(Judgement { safe_to_stop, pro, contra })
}

/// Returns the reason why somebody may be using the holder, where both programs were started by
/// hand in the same place.
fn somebody_works(holder: &Process, failing: &Process) -> Option<String> {
    if responsibility::work_together(holder, failing) {
        return Some("somebody works in the same session".to_owned());
    }
    responsibility::works_there(holder, failing)
}

/// Adds the reasons that follow from which release of the same program the holder is.
fn of_the_program(case: &Case, holder: &Process, pro: &mut Vec<String>, contra: &mut Vec<String>) {
    if holder.exe.as_deref().is_some_and(|exe| exe.ends_with(" (deleted)")) {
        pro.push("its executable was deleted or replaced: probably an older release".to_owned());
    }
    match program::versions(holder, case.process()) {
        Some((theirs, ours)) if program::is_newer(theirs, ours) => {
            contra.push(format!("it runs the newer {theirs}; the failing program is {ours}"));
        }
        Some((theirs, ours)) => {
            pro.push(format!("it runs {theirs}; the failing program is {ours}"));
        }
        None => {}
    }
}

fn older(case: &Case, holder: &Process) -> Option<String> {
    let (theirs, ours) = (holder.started?, case.process().started?);
    let age = words::age(theirs, ours).filter(|_| theirs < ours)?;
    Some(format!("it is the same program, started {age} before this one"))
}

/// Adds the reasons that follow from who started the holder, and who would restart it.
fn of_its_start(case: &Case, holder: &Process, pro: &mut Vec<String>, contra: &mut Vec<String>) {
    match responsibility::place(holder) {
        _ if holder.container.is_some() => {}
        Some(Place::Session) => {
            let session = holder.session.as_deref().unwrap_or_default();
            let user = holder.session_user.as_ref().or(holder.user.as_ref());
            let user = user.map(|user| format!(" of {user}")).unwrap_or_default();
            let tty = holder.tty.as_ref().map(|tty| format!(" on {tty}")).unwrap_or_default();
            pro.push(format!(
                "it runs in login session {session}{user}{tty}, not under a service manager"
            ));
        }
        Some(Place::Terminal) => {
            let user = holder.user.as_ref().map(|user| format!(" of {user}")).unwrap_or_default();
            pro.push(format!("it was started by hand in a terminal{user}"));
        }
        Some(Place::Launched { by, unit }) if responsibility::service(holder).is_none() => {
            pro.push(format!("{} started it ({unit}), and no service manager runs it", by.what));
        }
        Some(Place::NoUnit) if holder.ppid == Some(1) && on_systemd(case, holder) => {
            pro.push("its parent is pid 1 and no unit manages it: probably an orphan".to_owned());
        }
        _ => {}
    }
    if holder.state == Some(ProcessState::Stopped) {
        pro.push("it is stopped (Ctrl-Z or SIGSTOP), so it serves nobody now".to_owned());
    }
    if let Some(supervisor) = holder::restarter(case.evidence, holder) {
        let name = supervisor.name.as_deref().unwrap_or("it");
        contra.push(match (supervisor.kind, supervisor.restart.as_deref()) {
            (SupervisorKind::Systemd, policy) => format!(
                "systemd restarts {name} (Restart={}): stop the unit, not the process",
                policy.unwrap_or("yes")
            ),
            (SupervisorKind::Shell, _) => "a shell restarts it in a loop".to_owned(),
            (kind, _) => {
                format!("{kind} restarts {name} when it exits: stop it there")
            }
        });
    }
}

/// Returns whether the processes of this machine run in units. On other machines every healthy
/// service has pid 1 as its parent and no unit.
fn on_systemd(case: &Case, holder: &Process) -> bool {
    let path_known = holder.cgroup.as_ref().is_some_and(|cgroup| cgroup.path.is_some());
    let failing = case.process();
    path_known && (failing.unit.is_some() || failing.session.is_some())
}
