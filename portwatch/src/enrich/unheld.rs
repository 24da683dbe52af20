//! Sockets that no process has open, though they are there: the kernel's own,
//! and those whose descriptor is under way between two processes.

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

/// Processes that are taken for those that may receive a descriptor.
const MOST_RECEIVERS: usize = 32;

/// Says of the sockets that nobody has open what has them. Those that
/// have been closed meanwhile are left as they are. Returns whether `diag` may still hold a
/// part of a reply.
///
/// Who bound a socket and lives has sent it away, or has it in another way than
/// by a descriptor. To whom descriptors are under way, the kernel tells, but not
/// which: a machine may have some under way for other reasons, so that nobody
/// is named for that alone.
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
    // First who bound them, then what is still there: who was dead by then cannot
    // have kept it.
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
            "what keeps {unknown} sockets that no process has open was not seen before the deadline"
        );
        gaps.push(Gap::new(Fact::Unheld, why));
    }
    broken
}

/// What is not known where nobody could be named.
fn gap(receivers: &Result<Vec<u32>, SearchError>) -> Option<Gap> {
    let why = match receivers {
        Ok(pids) if pids.is_empty() => return None,
        Ok(pids) => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!(
                "no process has the socket open; descriptors are under way to pid {}, and whether \
                 it is among them cannot be seen",
                pids.join(", ")
            )
        }
        Err(why) => format!(
            "no process has the socket open; whether its descriptor is under way to one was not \
             seen: {why}"
        ),
    };
    Some(Gap::new(Fact::Unheld, why))
}

/// Whether the kernel itself has said so when the socket refused.
fn is_kernels_own(socket: &Socket, culprit: Option<&RawCulprit>) -> bool {
    culprit.is_some_and(|culprit| {
        culprit.kernels_own && culprit.cookie.is_some() && culprit.cookie == socket.cookie
    })
}

/// Who bound a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binder {
    /// Nobody on record, or a process that is gone.
    Gone,
    /// A process that is ending: it has given its table of files away, and the
    /// kernel closes what was in it one by one (`exit_files`).
    Ending,
    /// A process that goes on.
    Alive(u32),
}

/// Whether processes have no descriptors any more, looked up once each: that takes a list
/// of the first thousand of them.
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

/// The processes to which descriptors are under way. Which socket those
/// descriptors are, the kernel does not say.
fn receivers_of_any(files: &mut dyn Files, deadline: Instant) -> Result<Vec<u32>, SearchError> {
    let mut pids = Vec::new();
    files.search(Sought::InFlight, deadline, &mut |file| {
        if !pids.contains(&file.pid) && pids.len() < MOST_RECEIVERS {
            pids.push(file.pid);
        }
    })?;
    Ok(pids)
}
