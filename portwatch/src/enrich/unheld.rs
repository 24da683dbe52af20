//! Explains sockets that exist although no process has them open: sockets of the kernel itself,
//! and sockets whose descriptor is in flight between two processes.

use std::{collections::HashMap, fs, io::ErrorKind, time::Instant};

use crate::{
    decode::RawCulprit,
    enrich::{
        holders::{Searched, Searches},
        host::{DiagSocket, Host},
        processes,
        sockets::Search,
    },
    evidence::{Fact, Gap, Socket, Unheld},
    kernel::{
        files::{Files, SearchError, Sought},
        records::Records,
    },
};

/// The most processes that are listed as possible receivers of a descriptor.
const MOST_RECEIVERS: usize = 32;

/// Explains sockets that no process has open. Sockets that were closed in the meantime stay as
/// they are. Returns whether `diag` may still contain part of a reply.
///
/// If the process that bound a socket is alive, it has sent the socket to another process, or
/// keeps it without a descriptor. The kernel reports which processes have descriptors in flight
/// to them, but not which descriptors. They may be other descriptors, so no process is named
/// for this reason alone.
pub fn explain(
    search: &Search,
    diag: &mut dyn DiagSocket,
    files: &mut dyn Files,
    searches: &Searches,
    sockets: &mut [Socket],
    deadline: Instant,
    gaps: &mut Vec<Gap>,
) -> bool {
    let is_one = |socket: &Socket| match searches.of(socket) {
        Some(Searched::Nobody) => true,
        Some(Searched::Found | Searched::Incomplete) | None => false,
    };
    if !sockets.iter().any(is_one) {
        return false;
    }
    // The processes that bound the sockets are read first, and the existing sockets after that:
    // a process that had exited by then cannot have kept its socket open.
    let mut tables = Tables::default();
    let binders: Vec<Binder> = sockets
        .iter()
        .map(|socket| match is_one(socket) && Instant::now() < deadline {
            true => binder(search.host, search.records, socket, &mut tables),
            false => Binder::Gone,
        })
        .collect();
    let in_time = Instant::now() < deadline;
    let still = in_time.then(|| search.run(diag, deadline, &mut Vec::new()));
    let broken = still.as_ref().is_some_and(|still| still.broken);
    let mut receivers = None;
    let mut unknown = 0;
    for (socket, binder) in sockets.iter_mut().zip(binders).filter(|(socket, _)| is_one(socket)) {
        if is_kernels_own(socket, search.culprit) {
            socket.unheld = Some(Unheld::Kernel);
            continue;
        }
        let mut there = still.iter().flat_map(|still| &still.sockets);
        let is_there = there.any(|other| other.inode == socket.inode);
        if Instant::now() > deadline || (broken && !is_there) {
            unknown += 1;
            continue;
        }
        if !is_there || binder == Binder::Ending {
            continue;
        }
        if let Binder::Alive(pid) = binder {
            socket.holders = processes::by_pid(search.host, pid).into_iter().collect();
            socket.unheld = Some(Unheld::InFlight);
            continue;
        }
        let receivers = receivers.get_or_insert_with(|| receivers_of_any(files, deadline));
        socket.unheld = Some(match receivers {
            Ok(pids) if pids.is_empty() => Unheld::Kernel,
            _ => Unheld::Nobody,
        });
    }
    gaps.extend(receivers.and_then(|receivers| gap(&receivers)));
    if unknown > 0 {
        let why = format!(
            "the deadline was reached before it was known what keeps {unknown} sockets that no \
             process has open"
        );
        gaps.push(Gap::new(Fact::Unheld, why));
    }
    broken
}

/// Returns the gap if no process could be named.
fn gap(receivers: &Result<Vec<u32>, SearchError>) -> Option<Gap> {
    let why = match receivers {
        Ok(pids) if pids.is_empty() => return None,
        Ok(pids) => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!(
                "no process has the socket open; descriptors are in flight to pid {}, and the \
                 kernel does not show whether it is among them",
                pids.join(", ")
            )
        }
        Err(why) => format!(
            "no process has the socket open; whether its descriptor is in flight to one is not \
             known: {why}"
        ),
    };
    Some(Gap::new(Fact::Unheld, why))
}

/// Returns whether the kernel side reported the socket as the kernel's own when the bind
/// failed.
fn is_kernels_own(socket: &Socket, culprit: Option<&RawCulprit>) -> bool {
    culprit.is_some_and(|culprit| {
        culprit.kernels_own && culprit.cookie.is_some() && culprit.cookie == socket.cookie
    })
}

/// The process that bound a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binder {
    /// There is no recorded process, or it has exited.
    Gone,
    /// A process that is exiting: it has released its descriptor table, and the kernel closes
    /// the files in it one by one (`exit_files`).
    Ending,
    /// A running process.
    Alive(u32),
}

/// Whether processes have no descriptors left. Each process is looked up once, because that
/// lists up to the first thousand descriptors.
type Tables = HashMap<u32, bool>;

fn binder(host: &Host, records: &dyn Records, socket: &Socket, tables: &mut Tables) -> Binder {
    let Some(owner) = socket.cookie.and_then(|cookie| records.owner(cookie)) else {
        return Binder::Gone;
    };
    if !processes::is_alive(host, &owner) {
        return Binder::Gone;
    }
    let is_ending = tables.entry(owner.pid).or_insert_with(|| {
        match fs::read_dir(host.proc_file(owner.pid, "fd")).map(|mut files| files.next()) {
            Ok(first) => first.is_none(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    });
    if *is_ending { Binder::Ending } else { Binder::Alive(owner.pid) }
}

/// Returns the processes that have descriptors in flight to them. The kernel does not say
/// which sockets those are.
fn receivers_of_any(files: &mut dyn Files, deadline: Instant) -> Result<Vec<u32>, SearchError> {
    let mut pids = Vec::new();
    files.search(Sought::InFlight, deadline, &mut |file| {
        if !pids.contains(&file.pid) && pids.len() < MOST_RECEIVERS {
            pids.push(file.pid);
        }
    })?;
    Ok(pids)
}
