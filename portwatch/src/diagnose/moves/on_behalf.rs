//! Holders that have a port open on behalf of another process, or because of one: the actions
//! are about that other process.

use std::collections::BTreeSet;

use crate::{
    diagnose::{
        Move, Risk,
        act::Act,
        case::Case,
        moves::{
            action, command, look,
            manager::{as_user, stop, systemctl},
            quote,
        },
        responsibility, words,
    },
    evidence::Process,
    roles::{self, Role},
    supervisors,
};

/// Returns the actions against the process that sent the socket: the holder did not ask for it.
pub fn received(case: &Case, holder: &Process) -> Vec<Move> {
    let binder = case.first().and_then(|culprit| culprit.socket.binder.as_ref());
    let sender = binder.map(|binder| {
        let user = binder.user.clone().or(binder.uid.map(|uid| format!("uid {uid}")));
        let user = user.map(|user| format!(" of user {user}")).unwrap_or_default();
        (format!("{}[{}]{user}", binder.comm, binder.pid), binder)
    });
    let mut moves = Vec::new();
    if let Some((sender, binder)) = &sender
        && binder.alive
    {
        moves.push(command(
            format!("ps -o pid,ppid,user,lstart,cmd -p {}", binder.pid),
            format!(
                "{sender} bound the port and sent the socket to {}: this shows it; end it, or have \
                 it close the connection over which it was sent",
                words::process(holder)
            ),
            Risk::None,
        ));
    }
    let by = sender.map_or("another process".to_owned(), |(sender, _)| sender);
    moves.extend(stop(
        case,
        holder,
        &format!(
            "only if it may be interrupted: it did not bind the port, {by} did and sent it the socket"
        ),
    ));
    moves
}

/// Returns the actions where a daemon listens for its programs: one program is stopped, never
/// the daemon that serves all of them.
pub fn app_daemon(case: &Case, holder: &Process) -> Vec<Move> {
    let Some(Role::AppDaemon(daemon)) = roles::of(holder, case.process()) else {
        return vec![look(case)];
    };
    let home = daemon.home.and_then(|(name, home)| {
        let path = home(&holder.cmdline).map(|path| quote(&path));
        // A title is cut at the length of the arguments that it has overwritten.
        let title = holder.cmdline.first().unwrap_or_default();
        let is_cut = title.contains("(/") && !title.ends_with(')');
        let path = path.or_else(|| is_cut.then(|| variable(holder.pid, name)))?;
        Some(format!("env {name}={path} "))
    });
    let home = home.unwrap_or_default();
    let config = configuration(holder, daemon.config).unwrap_or_default();
    let (program, rest) = daemon.list;
    let list = format!("{home}{program}{config} {rest}");
    // The daemon of a user is asked as that user: root's daemon has other programs.
    let of_user = daemon.per_user || !daemon.config.is_empty();
    let list = if of_user { as_user(holder.uid, holder, &list) } else { Some(list) };
    let Some(list) = list else { return vec![look(case)] };
    vec![command(
        list,
        format!(
            "{} has the port open for one of its {}, which this shows: {}; a kill would end all of \
             them",
            words::process(holder),
            daemon.apps,
            daemon.then
        ),
        Risk::None,
    )]
}

/// Returns an expression of a shell for a variable of a process, empty if it is not set.
fn variable(pid: u32, name: &str) -> String {
    format!("\"$(tr '\\0' '\\n' < /proc/{pid}/environ | sed -n 's/^{name}=//p')\"")
}

/// Returns ` -c FILE`, where the daemon was started with that option, or `None` if its
/// directory is unknown.
fn configuration(holder: &Process, options: &[&str]) -> Option<String> {
    let told = supervisors::configuration(&holder.cmdline, options)?;
    let path = match told.starts_with('/') {
        true => told.to_owned(),
        false => {
            let there = holder.cwd.as_deref().filter(|path| path.starts_with('/'))?;
            format!("{}/{told}", there.trim_end_matches('/'))
        }
    };
    Some(format!(" {} {}", options.first()?, quote(&path)))
}

/// Stops the unit for which systemd listens: the next connection would only restart its
/// service. A service that runs already has the socket open as well.
pub fn socket_unit(case: &Case, holder: &Process, port: u16) -> Move {
    let systemctl = systemctl(holder);
    let others = case.first().into_iter().flat_map(|culprit| &culprit.socket.holders);
    let services = others
        .filter(|other| other.pid != holder.pid && other.unit_owner == holder.unit_owner)
        .filter_map(responsibility::service)
        .filter(|service| service.ends_with(".service"))
        .collect::<BTreeSet<_>>();
    match holder.unit.as_deref().filter(is_socket).or_else(|| bound_for(case)) {
        Some(unit) if services.is_empty() => action(
            format!("{systemctl} stop {}", quote(unit)),
            format!(
                "systemd is listening for {unit} and starts its service when a client connects; stop \
                 the socket unit: stopping the service alone does not free the port"
            ),
            Risk::Interrupts,
            Act::StopUnits { owner: holder.unit_owner, units: vec![unit.to_owned()] },
        ),
        Some(unit) => {
            let names = words::list(services.iter().map(|service| quote(service)), " ");
            let units = std::iter::once(unit).chain(services.iter().copied());
            action(
                format!("{systemctl} stop {} {names}", quote(unit)),
                format!(
                    "systemd is listening for {unit}, and {names} has the socket open too: the port \
                     is free when both are stopped"
                ),
                Risk::Interrupts,
                Act::StopUnits {
                    owner: holder.unit_owner,
                    units: units.map(str::to_owned).collect(),
                },
            )
        }
        None => command(
            format!("{systemctl} list-sockets | grep -w {port}"),
            "systemd has the port open for a socket unit: this shows which; stop that .socket unit",
            Risk::None,
        ),
    }
}

fn is_socket(unit: &&str) -> bool {
    unit.ends_with(".socket")
}

/// Returns the unit for which systemd's child bound the blocking socket. It comes from the
/// child's control group, where systemd itself did not answer.
fn bound_for<'a>(case: &Case<'a>) -> Option<&'a str> {
    let last = case.evidence.last_holder.as_ref()?;
    let binder = &last.process;
    let is_this = case.first().and_then(|culprit| culprit.socket.cookie) == Some(last.cookie);
    let is_systemd = roles::of(binder, case.process()) == Some(Role::SystemdChild);
    binder.unit.as_deref().filter(is_socket).filter(|_| is_this && is_systemd)
}
