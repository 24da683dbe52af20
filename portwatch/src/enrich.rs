//! Collects evidence about a failed bind: everything that the host can say about it now. Never
//! fails: evidence that is not available becomes a gap.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    decode::{RawBind, RawCulprit, RawFailure},
    engines::{self, Engine},
    evidence::{
        Cgroup, Connections, Ephemeral, Evidence, Fact, Failure, Gap, Netns, Origin, Process,
        State, Subject,
    },
    kernel::{files::Files, records::Records},
    redact::Redaction,
};

mod aside;
mod backoff;
mod cgroups;
pub mod containers;
mod exhaustion;
mod holders;
mod hooked;
pub mod host;
pub(crate) mod inherited;
pub mod managers;
mod memory;
pub(crate) mod netns;
pub mod options;
mod processes;
mod record;
mod run;
mod runtime;
pub mod seal;
mod seed;
pub(crate) mod sock_diag;
pub(crate) mod sockets;
mod supervisors;
pub mod survey;
mod unheld;
mod vouch;

use containers::Containers;
use holders::Searches;
use host::{DiagSocket, Host, NetnsRef};
pub(crate) use processes::stat;
use supervisors::Supervisors;

/// Default time limit to collect evidence about one failed bind.
pub const DEADLINE: Duration = Duration::from_millis(250);

/// Time limit per failed bind for waits on processes that do not respond when their memory or
/// their files are read.
const MOST_IN_VAIN: Duration = Duration::from_millis(100);

/// Returns this process, as evidence.
pub fn this_process(host: &Host) -> Option<Process> {
    let own = processes::by_pid(host, std::process::id())?;
    Some(Process { ancestors: processes::line(host, own.ppid), ..own })
}

/// Returns a process and its parents in words, nearest first, without pid 1.
pub fn ancestry(host: &Host, pid: Option<u32>) -> Vec<String> {
    let line = processes::line(host, pid).into_iter();
    line.filter_map(|pid| Some(format!("{}[{pid}]", processes::parent_of(host, pid)?.comm)))
        .collect()
}

/// Turns failed binds into evidence.
pub struct Enricher {
    host: Host,
    records: Box<dyn Records>,
    namespaces: netns::Namespaces,
    holders: holders::Holders,
    supervisors: Supervisors,
    containers: Containers,
}

impl Enricher {
    /// Creates an enricher for `host` that reads owners from `records`, and uses `files` to
    /// search all open files if nothing else finds a holder.
    pub fn new(host: Host, records: Box<dyn Records>, files: Box<dyn Files>) -> Self {
        let holders = holders::Holders::new(files);
        Self {
            host,
            records,
            namespaces: netns::Namespaces::default(),
            holders,
            supervisors: Supervisors::default(),
            containers: Containers::default(),
        }
    }

    /// Sets what is redacted in command lines.
    pub fn redact_by(&mut self, redaction: Redaction) {
        self.host.redacting(redaction);
    }

    /// Returns the network namespaces that can be found, at most `most`, the agent's own first,
    /// and whether these are all of them.
    pub fn all_netns(&self, most: usize) -> (Vec<NetnsRef>, bool) {
        netns::all(&self.host, most)
    }

    /// Enters a network namespace, to explain binds in it.
    ///
    /// # Errors
    /// Access was denied.
    pub fn enter(&mut self, way: &NetnsRef) -> io::Result<Netns> {
        self.namespaces.admit(&self.host, way)
    }

    /// Returns a socket in a network namespace, to list its interfaces.
    ///
    /// # Errors
    /// Access was denied.
    pub fn socket(&self, place: &NetnsRef) -> io::Result<Box<dyn DiagSocket>> {
        self.host.sock_diag(place)
    }

    /// Returns the engines that may be running here and have port tables of their own.
    pub fn engines_with_tables(&self) -> Vec<Engine> {
        let with_tables = engines::all().filter(|engine| engine.spec().taken.is_some());
        with_tables.filter(|&engine| containers::may_run(&self.host, engine)).collect()
    }

    /// Writes owners of sockets that are older than the agent into the owner record.
    pub fn seed(&mut self) {
        seed::seed(&self.host, &mut *self.records, self.holders.files());
        self.host.rest();
    }

    /// Returns the time until [`rest`](Self::rest) is due; `None` if it is not needed.
    pub fn next_rest(&self) -> Option<Duration> {
        self.namespaces.next_release()
    }

    /// Releases what was kept for the next failed bind.
    pub fn rest(&mut self) {
        self.namespaces.release_idle();
    }

    /// Returns whether id and path belong to one group that is not the hierarchy's root.
    pub fn is_one_group(&self, group: &Cgroup) -> bool {
        cgroups::is_one(&self.host, group)
    }

    /// Returns whether the process that failed at this time is still running, or `None` if
    /// /proc does not show it.
    pub fn is_running(&self, pid: u32, started_ns: Option<u64>, failed_ns: u64) -> Option<bool> {
        let running = processes::is_running(&self.host, pid, started_ns, failed_ns);
        if running { Some(true) } else { self.host.hidden().is_none().then_some(false) }
    }

    /// Returns what the id of a control group says about a process in it.
    pub fn process_in(&self, group: u64) -> Process {
        let cgroup = Some(Cgroup { id: Some(group), path: None });
        let mut process = Process { cgroup, ..Process::default() };
        processes::name_cgroup(&self.host, &*self.records, &mut process);
        process
    }

    /// Collects the evidence of a failed bind within `patience`.
    pub fn enrich(&mut self, raw: &RawFailure, patience: Duration) -> Evidence {
        self.look(&raw.bind, Some(raw), patience)
    }

    /// Collects the evidence of a bind that no process has attempted, within `patience`.
    pub fn look_at(&mut self, bind: &RawBind, patience: Duration) -> Evidence {
        self.look(bind, None, patience)
    }

    /// Runs the phases. Each one takes the result of the previous one.
    fn look(&mut self, bind: &RawBind, by: Option<&RawFailure>, patience: Duration) -> Evidence {
        let deadline = Instant::now() + patience;
        self.host.begin((patience / 2).min(MOST_IN_VAIN));
        let look = Look { host: &self.host, records: &*self.records, bind, by, deadline };
        // Sockets come first because they change fastest.
        let listed = look.list(&mut self.namespaces);
        let held = look.hold(listed, &mut self.holders);
        if held.found.broken {
            self.namespaces.forget(&held.netns);
        }
        let recalled = look.recall(held);
        let described = look.describe(recalled, &mut self.supervisors, &mut self.containers);
        // Removes secrets, and limits the size.
        seal::seal(described)
    }
}

/// One bind about which evidence is collected.
pub(crate) struct Look<'a> {
    host: &'a Host,
    records: &'a dyn Records,
    bind: &'a RawBind,
    /// The failed bind; `None` if no process has attempted it.
    by: Option<&'a RawFailure>,
    deadline: Instant,
}

/// The sockets on the port, and the failing process.
struct Listed<'n> {
    failure: Failure,
    process: Process,
    netns: Netns,
    diag: Option<&'n mut dyn DiagSocket>,
    found: sockets::Found,
    gaps: Vec<Gap>,
}

/// The same, with the processes that have the sockets open. The kernel's listing is no longer
/// needed.
struct Held {
    failure: Failure,
    process: Process,
    netns: Netns,
    ephemeral: Option<Ephemeral>,
    found: sockets::Found,
    searches: Searches,
    gaps: Vec<Gap>,
}

/// Everything that the host itself knows. Units, supervisors and containers are still missing.
struct Recalled(Evidence);

/// All evidence. Its texts may still contain secrets.
pub struct Described(Evidence);

impl<'a> Look<'a> {
    /// Finds the namespace, the sockets on the port in it, and the failing process.
    fn list<'n>(&self, namespaces: &'n mut netns::Namespaces) -> Listed<'n> {
        let &Self { host, records, bind, by, deadline } = self;
        let mut gaps = Vec::new();
        let failure = hooked::failure(bind, &mut gaps);
        let (netns, mut diag) = namespaces.enter(self, &mut gaps);
        let mut found = match &mut diag {
            Some(diag) if bind.port != 0 => {
                self.search(&failure).run(&mut **diag, halfway(deadline), &mut gaps)
            }
            _ => sockets::Found::default(),
        };
        if let Some(culprit) = self.culprit() {
            hooked::point_out(culprit, bind, &mut found);
        }
        let process = by.map(|raw| processes::failing(host, records, raw, &mut gaps));
        record::recall_options(records, &mut found.sockets);
        record::recall_port_choice(records, &mut found.sockets);
        Listed { failure, process: process.unwrap_or_default(), netns, diag, found, gaps }
    }

    /// Finds the processes that have the sockets open, or why no process has, and the use of
    /// the ephemeral port range if the bind asked for any port.
    fn hold(&self, listed: Listed<'_>, holders: &mut holders::Holders) -> Held {
        let &Self { host, records, bind, deadline, .. } = self;
        let Listed { mut failure, process, netns, mut diag, mut found, mut gaps } = listed;
        let searches = holders.name(host, records, &mut found.sockets, deadline, &mut gaps);
        if let Some(diag) = diag.as_deref_mut().filter(|_| !found.broken) {
            let (files, sockets) = (holders.files(), &mut found.sockets);
            let search = self.search(&failure);
            found.broken =
                unheld::explain(&search, diag, files, &searches, sockets, deadline, &mut gaps);
        }
        if let Some(device) = &mut failure.device {
            device.name = diag.as_ref().and_then(|diag| diag.device_name(device.index));
        }
        let mut ephemeral = diag.as_ref().and_then(|diag| diag.ephemeral());
        if let (0, Some(range), Some(diag)) = (bind.port, &mut ephemeral, diag) {
            let files = holders.files();
            match exhaustion::usage(host, diag, files, range, bind.protocol, deadline) {
                Ok(usage) => range.usage = Some(usage),
                Err(why) => {
                    found.broken = true;
                    gaps.push(Gap::new(Fact::EphemeralUsage, why.to_string()));
                }
            }
        }
        options::ask(&mut found.sockets);
        Held { failure, process, netns, ephemeral, found, searches, gaps }
    }

    /// Adds what the owner record knows about the sockets and the previous holders.
    fn recall(&self, held: Held) -> Recalled {
        let &Self { host, records, bind, by, deadline } = self;
        let Held { failure, mut process, netns, ephemeral, mut found, searches, mut gaps } = held;
        record::recall_origin(host, records, &mut found.sockets);
        record::recall_arguments(host, records, &mut found.sockets);
        gaps.extend(record::recall_binder(host, records, &mut found.sockets, &searches));
        let [last_holder, previous_holder] = record::last_holders(host, records, bind);
        let outgoing = records.origin(bind.port) == Some(Origin::Outgoing);
        if found.time_wait.count > 0 && !outgoing {
            found.time_wait.left_by = record::left_by([&last_holder, &previous_holder]);
        }
        // This is used only for the advice to set the option, which helps except against a
        // listener. So the more important evidence is collected first.
        let left_over = found.time_wait.count > 0 || found.connections != Connections::default();
        let listens = found.sockets.iter().any(|socket| socket.state == State::Listen);
        let advised = bind.reuseaddr != Some(true) && left_over && !listens;
        if let Some(raw) = by.filter(|_| advised && Instant::now() < deadline) {
            process.runtime = runtime::of(host, &process, &raw.task);
        }
        Recalled(Evidence {
            time: host.wall_clock(bind.at_ns),
            kernel: host.release.clone(),
            subject: if by.is_some() { Subject::Failed } else { Subject::Asked },
            failure,
            process,
            netns,
            sockets: found.sockets,
            time_wait: found.time_wait,
            connections: found.connections,
            ephemeral,
            last_holder,
            previous_holder,
            gaps,
        })
    }

    /// Adds what service managers and engines know about the processes.
    fn describe(
        &self,
        Recalled(mut evidence): Recalled,
        supervisors: &mut Supervisors,
        containers: &mut Containers,
    ) -> Described {
        let &Self { host, deadline, .. } = self;
        vouch::vouch_all(host, &mut evidence);
        supervisors.describe_all(host, &mut evidence, deadline);
        containers.describe_all(host, &mut evidence, deadline);
        netns::note_strangers(host, &mut evidence);
        netns::note_resident(host, &mut evidence, deadline);
        containers::name_netns(host, &mut evidence);
        evidence.gaps.extend(host.unread());
        Described(evidence)
    }

    fn search<'s>(&'s self, failure: &'s Failure) -> sockets::Search<'s> {
        sockets::Search {
            host: self.host,
            records: self.records,
            failure,
            culprit: self.culprit(),
            netns_cookie: self.bind.netns_cookie,
            netns_inode: self.bind.netns_inode,
            everything: self.by.is_none(),
        }
    }

    /// Returns the pid of the failing process.
    fn pid(&self) -> Option<u32> {
        Some(self.by?.task.pid)
    }

    /// Returns the blocking socket, if the hooks saw it.
    fn culprit(&self) -> Option<&'a RawCulprit> {
        self.by?.culprit.as_ref()
    }
}

/// Returns the time halfway to the deadline, at which a step must end that could otherwise use
/// all of the time.
fn halfway(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

#[cfg(test)]
mod tests;
