//! Which process has a socket open, and what kind of holder it is.

use jiff::SignedDuration;

use crate::{
    diagnose::{Holder, HolderClass, program, responsibility},
    evidence::{
        Binder, Evidence, LastHolder, Process, Socket, State, Supervisor, SupervisorKind, Unheld,
    },
    roles::{self, Role},
};

/// A process younger than this that replaced another of its kind on the port was restarted by
/// whatever keeps it running. systemd waits 100 ms by default, administrators configure some
/// seconds.
const MOMENTS: SignedDuration = SignedDuration::from_secs(60);

/// /proc has the start of a process in ticks (`USER_HZ`), and a server may fork between its bind
/// and its listen.
const START_PRECISION: SignedDuration = SignedDuration::from_secs(1);

/// Returns the process to name, and its class. Several processes may have the socket open. The
/// one to act on is the ancestor of the others, otherwise the one that bound the socket,
/// otherwise the oldest: any process can send a descriptor to another.
pub fn behind<'a>(evidence: &Evidence, socket: &'a Socket) -> (HolderClass, Option<&'a Process>) {
    let failing = &evidence.process;
    // systemd is an ancestor of every process, and has ports open for units.
    if let Some(systemd) = socket.holders.iter().find(|holder| is_systemd(holder, failing)) {
        return (HolderClass::SocketUnit, Some(systemd));
    }
    if let Some(own) = socket.holders.iter().find(|holder| is_self(evidence, holder)) {
        return (HolderClass::Itself, Some(own));
    }
    match socket.unheld {
        Some(Unheld::Kernel) => return (HolderClass::KernelSocket, None),
        Some(Unheld::InFlight) => return (HolderClass::InFlight, socket.holders.first()),
        Some(Unheld::Nobody) | None => {}
    }
    let inherited = |holder: &Process| {
        socket.holders.iter().any(|other| other.pid != holder.pid && holder.ppid == Some(other.pid))
    };
    let bound = |holder: &Process| {
        socket.binder.as_ref().is_some_and(|binder| binder.is(holder.pid, holder.started))
    };
    let first = socket.holders.iter().min_by_key(|holder| {
        let is_other = (!bound(holder), inherited(holder));
        (is_other, holder.started.is_none(), holder.started, holder.pid)
    });
    match first {
        Some(holder) => {
            // A process that has the socket open on behalf of another has often received it.
            let class = match class(evidence, holder) {
                proxy @ (HolderClass::ContainerProxy
                | HolderClass::KubeProxy
                | HolderClass::AppDaemon) => proxy,
                class => kept_open(socket, holder)
                    .or_else(|| came_back(evidence, socket, holder))
                    .unwrap_or(class),
            };
            (class, Some(holder))
        }
        None if is_orphan(socket) => (HolderClass::NoProcess, None),
        None => (HolderClass::Unknown, None),
    }
}

/// Returns the class of one process that is known to have had the port open.
pub fn of_one(evidence: &Evidence, holder: &Process) -> HolderClass {
    if is_self(evidence, holder) { HolderClass::Itself } else { class(evidence, holder) }
}

/// Returns whether the process is systemd, of the system or of a user, or the child that
/// systemd forks for a unit with a network namespace of its own.
fn is_systemd(process: &Process, failing: &Process) -> bool {
    matches!(roles::of(process, failing), Some(Role::Systemd | Role::SystemdChild))
}

/// Returns whether only the kernel keeps the socket: it has no inode, and is in a state that
/// outlives its process.
fn is_orphan(socket: &Socket) -> bool {
    socket.inode.is_none()
        && matches!(
            socket.state,
            State::TimeWait | State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck
        )
}

/// Builds the holder as it is written to the JSON output.
pub fn named(class: HolderClass, process: Option<&Process>) -> Holder {
    Holder {
        class,
        pid: process.map(|process| process.pid),
        comm: process.and_then(|process| process.comm.clone()),
        fd: process.and_then(|process| process.fd),
        user: process.and_then(|process| process.user.clone()),
        unit: process.and_then(|process| process.unit.clone()),
        container: process.and_then(|process| process.container.clone()),
        session: process.and_then(|process| process.session.clone()),
        started: process.and_then(|process| process.started),
    }
}

/// Returns whether the holder is the failing process, one of its ancestors or one of its
/// children. Pid 1 is an ancestor of every process and therefore does not count. Where no bind
/// was attempted, there is no such process.
fn is_self(evidence: &Evidence, holder: &Process) -> bool {
    let failing = &evidence.process;
    let is_related = holder.pid == failing.pid
        || holder.ppid == Some(failing.pid)
        || (holder.pid != 1 && failing.ancestors.contains(&holder.pid));
    !evidence.is_untried() && is_related
}

/// Returns why a holder has the socket open, where this says more than the class of its
/// program.
fn kept_open(socket: &Socket, holder: &Process) -> Option<HolderClass> {
    if holder.core_dumping {
        return Some(HolderClass::CoreDumping);
    }
    if holder.tid.is_some() {
        return Some(HolderClass::ThreadOnly);
    }
    let binder = socket.binder.as_ref().filter(|binder| !binder.is(holder.pid, holder.started))?;
    if was_sent(binder, holder) {
        return Some(HolderClass::Received);
    }
    // A server that forks into the background is still the same program, whatever its name is.
    // A program that its parent started is a different one.
    let then = Process {
        comm: Some(binder.comm.clone()),
        cmdline: binder.cmdline.clone(),
        ..Process::default()
    };
    let stranger = !binder.alive && program::same(&then, holder) == Some(false);
    stranger.then_some(HolderClass::Inherited)
}

/// Returns whether the holder cannot have inherited the socket from the process that bound it.
/// Then another process sent it (SCM_RIGHTS), whether the holder asked for it or not. A process
/// inherits only what was there when it started, and only root's processes have descendants of
/// other users.
fn was_sent(binder: &Binder, holder: &Process) -> bool {
    let bound = binder.bound.and_then(|bound| bound.checked_sub(START_PRECISION).ok());
    let came = [binder.started, bound];
    let is_older = holder.started.is_some_and(|it| came.iter().flatten().any(|them| it < *them));
    let of_another = matches!((binder.uid, holder.uid), (Some(a), Some(b)) if a != 0 && a != b);
    is_older || of_another
}

/// Returns whether the supervisor has just restarted it: another process of its kind left the
/// port moments before this one started.
fn came_back(evidence: &Evidence, socket: &Socket, holder: &Process) -> Option<HolderClass> {
    let supervisor = restarter(evidence, holder)?;
    let [last, before] = [&evidence.last_holder, &evidence.previous_holder];
    let is_this = |last: &LastHolder| Some(last.cookie) == socket.cookie;
    let before = last.as_ref().filter(|last| is_this(last)).and(before.as_ref())?;
    let of_its_kind = before.process.pid != holder.pid
        && (is_same_service(&before.process, holder)
            || (holder.unit.is_some() && supervisor.name == before.process.unit));
    let came = holder.started?;
    let followed = before.left.is_some_and(|left| came.duration_since(left).abs() < MOMENTS);
    (of_its_kind && just_before(evidence, holder) && followed).then_some(HolderClass::Restarted)
}

/// Returns whether the holder was started moments before the bind failed.
fn just_before(evidence: &Evidence, holder: &Process) -> bool {
    holder.started.is_some_and(|came| evidence.time.duration_since(came).abs() < MOMENTS)
}

/// Returns the supervisor of a process, if it restarts what exits by itself. A shell counts
/// only where a restart was seen: the previous process on the port was its child too. A shell
/// that also runs the failing process is a script that starts one program after the other.
pub fn restarter<'a>(evidence: &Evidence, process: &'a Process) -> Option<&'a Supervisor> {
    let supervisor = process.supervisor.as_ref()?;
    let restarts = match supervisor.kind {
        SupervisorKind::Systemd => {
            supervisor.restart.as_deref().is_some_and(|restart| restart != "no")
        }
        SupervisorKind::Shell => {
            let shell = supervisor.pid?;
            let before = evidence.previous_holder.as_ref().map(|before| &before.process);
            process.ppid == Some(shell)
                && !evidence.process.ancestors.contains(&shell)
                && (supervisor.loops
                    || before.is_some_and(|it| it.pid != process.pid && it.ppid == Some(shell)))
        }
        kind => kind.spec().is_some(),
    };
    restarts.then_some(supervisor)
}

/// Determines the class from the process itself. Processes that act on behalf of another come
/// first, then what the process is by itself.
fn class(evidence: &Evidence, holder: &Process) -> HolderClass {
    let failing = &evidence.process;
    // Other programs (dockerd) also have ports of their own open. They are proxies where an
    // engine says that this port is a container's.
    let has_published =
        holder.workload.as_ref().is_some_and(|workload| workload.published.is_some());
    match roles::of(holder, failing) {
        Some(Role::ContainerProxy) => return HolderClass::ContainerProxy,
        _ if has_published => return HolderClass::ContainerProxy,
        Some(Role::KubeProxy) => return HolderClass::KubeProxy,
        Some(Role::AppDaemon(_)) => return HolderClass::AppDaemon,
        Some(Role::Systemd | Role::SystemdChild) => return HolderClass::SocketUnit,
        None => {}
    }
    // Also where both run the same program: a rollout starts the new pod before the old one has
    // ended.
    if holder.container.is_some() && holder.container != failing.container {
        return HolderClass::Container;
    }
    if is_same_service(failing, holder) {
        let back = just_before(evidence, holder) && younger(holder, failing);
        let unit = responsibility::service(holder);
        let by_unit = unit.is_some() && unit == responsibility::service(failing);
        return if back && (by_unit || restarter(evidence, holder).is_some()) {
            HolderClass::Restarted
        } else {
            HolderClass::OldInstance
        };
    }
    if responsibility::is_by_hand(holder) {
        return HolderClass::Squatter;
    }
    HolderClass::OtherService
}

/// Returns whether both are the same service: the same unit or container, or the same program
/// of the same user where no two units separate them. The unit is the one that is responsible
/// for the process: what cron or a terminal started does not belong to cron or the terminal.
fn is_same_service(failing: &Process, holder: &Process) -> bool {
    let same_program = program::same(failing, holder);
    // The holder was started by hand in a login session, and the failing process was not: a
    // person left it there, whatever the program is.
    let left_there = holder.session.is_some() && holder.session != failing.session;
    if left_there || responsibility::in_another_machine(failing, holder) {
        return false;
    }
    // Jobs of one supervisor share its unit and are different services.
    let job = |process: &'_ Process| {
        let supervisor = process.supervisor.as_ref()?;
        supervisor.name.clone().filter(|_| supervisor.kind.spec().is_some())
    };
    if matches!((job(failing), job(holder)), (Some(a), Some(b)) if a != b) {
        return false;
    }
    let units = (responsibility::service(failing), responsibility::service(holder));
    let same_unit = same_program != Some(false)
        && units.0.is_some()
        && units.0 == units.1
        && failing.unit_owner == holder.unit_owner
        && failing.container == holder.container;
    // A name proves nothing: another user's process with that name is a different service.
    let of_one_user = failing.uid.is_some() && failing.uid == holder.uid;
    // Two units may run one program with two configurations: these are two services. If the
    // commands differ only by a version, one of them is an old release.
    same_unit
        || (same_program == Some(true)
            && of_one_user
            && (matches!(units, (None, _) | (_, None)) || program::is_release_of(failing, holder)))
}

fn younger(holder: &Process, failing: &Process) -> bool {
    matches!((holder.started, failing.started), (Some(a), Some(b)) if a > b)
}
