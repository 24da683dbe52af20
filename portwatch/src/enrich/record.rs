//! Reads the owner record and returns its entries as processes.

use portwatch_common::{Owner, Port, PortUse, flag};

use crate::{
    decode::{RawBind, address_of},
    enrich::{
        holders::{Searched, Searches},
        host::Host,
        processes, sock_diag,
    },
    evidence::{Binder, Cgroup, Fact, Gap, LastHolder, LeftBy, PortChoice, Process, Socket, State},
    kernel::records::Records,
};

/// Returns the process of an entry as it was at that time, whether or not it is still running.
pub fn process(host: &Host, records: &dyn Records, owner: &Owner) -> Process {
    let text = owner.comm.split(|&byte| byte == 0).next().unwrap_or_default();
    let mut process = Process {
        pid: owner.pid,
        ppid: (owner.ppid != 0).then_some(owner.ppid),
        comm: Some(String::from_utf8_lossy(text).into_owned()),
        cmdline: host.redacted(&records.arguments(owner)),
        uid: Some(owner.uid),
        started: (owner.started_ns != 0).then(|| processes::start(host, owner.started_ns)),
        cgroup: Some(Cgroup { id: Some(owner.cgroup_id), path: None }),
        ..Process::default()
    };
    processes::name_cgroup(host, records, &mut process);
    process
}

/// Returns the last and the second-last holder of the port. The failing socket itself does not
/// count.
pub fn last_holders(host: &Host, records: &dyn Records, bind: &RawBind) -> [Option<LastHolder>; 2] {
    let port = bind.netns_cookie.and_then(|netns_cookie| {
        let protocol = u16::from(sock_diag::protocol_number(bind.protocol)?);
        Some(Port { netns_cookie, port: bind.port, protocol, reserved: 0 })
    });
    let known = port.and_then(|port| records.port(port));
    let Some(PortUse { last_cookie, previous_cookie, .. }) = known else { return [None, None] };
    let holder = |cookie: u64| {
        let owner = records.owner(cookie).filter(|_| Some(cookie) != bind.socket_cookie)?;
        // Two ports that share a slot may be written at the same time.
        let owner = Some(owner).filter(|owner| Some(owner.port) == port)?;
        let [reuseaddr, reuseport] = options(&owner);
        Some(LastHolder {
            process: process(host, records, &owner),
            cookie,
            address: address_of(owner.family, owner.address).ok().map(|(_, address)| address),
            reuseaddr,
            reuseport,
            bound: (owner.at_ns != 0).then(|| host.wall_clock(owner.at_ns)),
            left: (owner.left_ns != 0).then(|| host.wall_clock(owner.left_ns)),
        })
    };
    if Some(last_cookie) == bind.socket_cookie {
        // It bound the port, and its listen failed.
        return [holder(previous_cookie), None];
    }
    [holder(last_cookie), holder(previous_cookie)]
}

/// Returns the process that left TIME-WAIT sockets behind: the last process that listened on
/// the port and has closed its listener.
pub fn left_by(holders: [&Option<LastHolder>; 2]) -> Option<LeftBy> {
    let last = holders.into_iter().flatten().find(|holder| holder.left.is_some())?;
    Some(LeftBy {
        pid: last.process.pid,
        program: last.process.comm.clone(),
        unit: last.process.unit.clone(),
        left: last.left,
    })
}

/// Names a process as the holder of a socket that surely blocks and that no process was found
/// to have open: the process that bound it. It may have exited between the failed bind and the
/// search. Then the evidence says so.
pub fn recall_binder(
    host: &Host,
    records: &dyn Records,
    sockets: &mut [Socket],
    searches: &Searches,
) -> Option<Gap> {
    let mut gap = None;
    for socket in sockets {
        let orphan = socket.inode.is_none() && socket.state != State::Bound;
        let nobody = socket.unheld.is_none()
            && socket.holders.is_empty()
            && !(orphan && socket.refused != Some(true));
        let owner = socket.cookie.filter(|_| nobody).and_then(|cookie| records.owner(cookie));
        if let Some(owner) = owner.filter(|_| socket.state != State::TimeWait) {
            let ended = has_ended(host, &owner);
            let why = match (ended, searches.of(socket)) {
                (true, _) => "bound the socket and has exited",
                (false, Some(Searched::Nobody)) => "bound the socket and no longer has it open",
                (false, Some(Searched::Found | Searched::Incomplete) | None) => {
                    "bound the socket; whether it still has it open is not known"
                }
            };
            socket.holders.push(Process { ended, ..process(host, records, &owner) });
            gap = Some(Gap::new(Fact::HolderFd, format!("pid {} {why}", owner.pid)));
        }
    }
    gap
}

/// Returns whether a recorded process has exited. If not every process is visible, the absence
/// of a process proves nothing.
fn has_ended(host: &Host, owner: &Owner) -> bool {
    !processes::is_alive(host, owner) && host.hidden().is_none()
}

/// Adds who bound a socket, where other processes have it open. In another pid namespace /proc
/// has other pids than the owner record, so pids cannot be compared there.
pub fn recall_origin(host: &Host, records: &dyn Records, sockets: &mut [Socket]) {
    for socket in sockets.iter_mut().filter(|socket| !socket.holders.is_empty()) {
        let Some(owner) = socket.cookie.and_then(|cookie| records.owner(cookie)) else { continue };
        let is_another = socket.holders.iter().any(|holder| holder.pid != owner.pid);
        if is_another && host.hidden().is_none() {
            let then = process(host, records, &owner);
            socket.binder = Some(Binder {
                pid: owner.pid,
                comm: then.comm.unwrap_or_default(),
                cmdline: then.cmdline,
                alive: processes::is_alive(host, &owner),
                uid: then.uid,
                user: then.user,
                started: then.started,
                bound: (owner.at_ns != 0).then(|| processes::start(host, owner.at_ns)),
            });
        }
    }
}

/// Adds the recorded arguments to the holders whose own could not be read.
pub fn recall_arguments(host: &Host, records: &dyn Records, sockets: &mut [Socket]) {
    for socket in sockets {
        let Some(unread) = socket.holders.iter_mut().find(|holder| holder.cmdline.is_empty())
        else {
            continue;
        };
        let owner = socket.cookie.and_then(|cookie| records.owner(cookie));
        let Some(owner) = owner.filter(|owner| owner.pid == unread.pid) else { continue };
        if unread.started == Some(processes::start(host, owner.started_ns)) {
            unread.cmdline = host.redacted(&records.arguments(&owner));
        }
    }
}

/// Adds the options that the hooks saw when the socket was bound. The program may have changed
/// them since, but there is no other source.
pub fn recall_options(records: &dyn Records, sockets: &mut [Socket]) {
    for socket in sockets.iter_mut().filter(|socket| socket.reuseaddr.is_none()) {
        let Some(owner) = socket.cookie.and_then(|cookie| records.owner(cookie)) else { continue };
        let [reuseaddr, reuseport] = options(&owner);
        socket.reuseaddr = reuseaddr;
        socket.reuseport = socket.reuseport.or(reuseport);
    }
}

/// Adds who chose the ports of bound sockets. A connection that was accepted, or whose port was
/// chosen at connect(2), has no owner record.
pub fn recall_port_choice(records: &dyn Records, sockets: &mut [Socket]) {
    for socket in sockets {
        let Some(owner) = socket.cookie.and_then(|cookie| records.owner(cookie)) else { continue };
        let known = owner.flags & flag::PORT_ASKED_KNOWN != 0;
        socket.port_chosen_by = match owner.flags & flag::PORT_ASKED {
            _ if !known => None,
            0 => Some(PortChoice::Kernel),
            _ => Some(PortChoice::Program),
        };
    }
}

/// Returns SO_REUSEADDR and SO_REUSEPORT, as the hooks saw them.
fn options(owner: &Owner) -> [Option<bool>; 2] {
    let known = owner.flags & flag::REUSE_KNOWN != 0;
    [flag::REUSEADDR, flag::REUSEPORT].map(|option| known.then_some(owner.flags & option != 0))
}
