//! Holders that have a port open for somebody else, or because of somebody else: the one behind
//! is to be dealt with.

use std::collections::BTreeSet;

use crate::{
    diagnose::{
        Move, Risk,
        case::Case,
        moves::{
            command, look,
            manager::{as_user, stop, systemctl},
            quote,
        },
        responsibility, words,
    },
    evidence::Process,
    roles::{self, Role},
    supervisors,
};

/// The process that sent the socket is to be dealt with: the holder did not ask for it.
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

/// A daemon that listens for its programs: one of those is stopped, never the daemon of all.
pub fn app_daemon(case: &Case, holder: &Process) -> Vec<Move> {
    let Some(Role::AppDaemon(daemon)) = roles::of(holder, case.process()) else {
        return vec![look(case)];
    };
    let home = daemon.home.and_then(|(variable, home)| Some((variable, home(&holder.cmdline)?)));
    let home = home.map(|(name, path)| format!("env {name}={} ", quote(&path))).unwrap_or_default();
    let config = configuration(holder, daemon.config).unwrap_or_default();
    let (program, rest) = daemon.list;
    let list = format!("{home}{program}{config} {rest}");
    // A user's own is asked as that user: root's has other programs.
    let of_user = daemon.per_user || !daemon.config.is_empty();
    let list = if of_user { as_user(holder, &list) } else { list };
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

/// ` -c FILE`, where the daemon was started with that; `None` if its directory is not known.
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

/// The unit for which systemd listens; its service would only be started again by
/// the next connection. A service that runs already has the socket open as well.
pub fn socket_unit(case: &Case, holder: &Process, port: u16) -> Move {
    let systemctl = systemctl(holder);
    let others = case.first().into_iter().flat_map(|culprit| &culprit.socket.holders);
    let services = others
        .filter(|other| other.pid != holder.pid && other.unit_owner == holder.unit_owner)
        .filter_map(responsibility::service)
        .filter(|service| service.ends_with(".service"))
        .collect::<BTreeSet<_>>();
    match holder.unit.as_deref().filter(|unit| unit.ends_with(".socket")) {
        Some(unit) if services.is_empty() => command(
            format!("{systemctl} stop {}", quote(unit)),
            format!(
                "systemd is listening for {unit} and starts its service when a client connects; stop \
                 the socket unit: stopping the service alone does not free the port"
            ),
            Risk::Interrupts,
        ),
        Some(unit) => {
            let names = words::list(services.iter().map(|service| quote(service)), " ");
            command(
                format!("{systemctl} stop {} {names}", quote(unit)),
                format!(
                    "systemd is listening for {unit}, and {names} has the socket open too: the port \
                     is free when both are stopped"
                ),
                Risk::Interrupts,
            )
        }
        None => command(
            format!("{systemctl} list-sockets | grep -w {port}"),
            "systemd has the port open for a socket unit: this shows which; stop that .socket unit",
            Risk::None,
        ),
    }
}
