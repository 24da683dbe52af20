//! A refusal to evidence: all that the host can tell about it now. Never fails;
//! what cannot be had becomes a gap.

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
mod containers;
mod exhaustion;
mod holders;
mod hooked;
pub mod host;
mod memory;
pub(crate) mod netns;
mod options;
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
use supervisors::Supervisors;

/// How long one refusal may be looked into, unless it is said otherwise.
pub const DEADLINE: Duration = Duration::from_millis(250);

/// How long is waited for processes that do not answer for their own memory, or for
/// their files, for one refusal.
const MOST_IN_VAIN: Duration = Duration::from_millis(100);

/// Turns refusals into evidence.
pub struct Enricher {
    host: Host,
    records: Box<dyn Records>,
    namespaces: netns::Namespaces,
    holders: holders::Holders,
    supervisors: Supervisors,
    containers: Containers,
}

impl Enricher {
    /// Looks at `host`, at who is on record, and, where nothing else helps, at
    /// all open files.
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

    /// Takes out of command lines what `redaction` says.
    pub fn redact_by(&mut self, redaction: Redaction) {
        self.host.redacting(redaction);
    }

    /// Every network namespace that can be found, at most `most`, the own first; and
    /// whether that is all of them.
    pub fn all_netns(&self, most: usize) -> (Vec<NetnsRef>, bool) {
        netns::all(&self.host, most)
    }

    /// Enters a network namespace, for binds that are asked about in it.
    ///
    /// # Errors
    /// It may not be entered.
    pub fn enter(&mut self, way: &NetnsRef) -> io::Result<Netns> {
        self.namespaces.admit(&self.host, way)
    }

    /// A socket in a network namespace, which knows its interfaces.
    ///
    /// # Errors
    /// It may not be entered.
    pub fn socket(&self, place: &NetnsRef) -> io::Result<Box<dyn DiagSocket>> {
        self.host.sock_diag(place)
    }

    /// The engines that may be running here and have tables of ports of their own.
    pub fn engines_with_tables(&self) -> Vec<Engine> {
        let with_tables = engines::all().filter(|engine| engine.spec().taken.is_some());
        with_tables.filter(|&engine| containers::may_run(&self.host, engine)).collect()
    }

    /// Puts on record what was there before the agent.
    pub fn seed(&mut self) {
        seed::seed(&self.host, &mut *self.records, self.holders.files());
        self.host.rest();
    }

    /// How soon [`rest`](Self::rest) is due; `None` if there is no need.
    pub fn next_rest(&self) -> Option<Duration> {
        self.namespaces.next_release()
    }

    /// Lets go of what was kept at hand for the next refusal.
    pub fn rest(&mut self) {
        self.namespaces.release_idle();
    }

    /// Whether a group's id and path are of one group, and not the hierarchy's root.
    pub fn is_one_group(&self, group: &Cgroup) -> bool {
        cgroups::is_one(&self.host, group)
    }

    /// Finds out what can be found out of a failed bind in as long as `patience`.
    pub fn enrich(&mut self, raw: &RawFailure, patience: Duration) -> Evidence {
        self.look(&raw.bind, Some(raw), patience)
    }

    /// Finds out what can be found out of a bind that nobody has tried in as long as
    /// `patience`.
    pub fn look_at(&mut self, bind: &RawBind, patience: Duration) -> Evidence {
        self.look(bind, None, patience)
    }

    /// Each phase takes what the one before has come to.
    fn look(&mut self, bind: &RawBind, by: Option<&RawFailure>, patience: Duration) -> Evidence {
        let deadline = Instant::now() + patience;
        self.host.begin((patience / 2).min(MOST_IN_VAIN));
        let look = Look { host: &self.host, records: &*self.records, bind, by, deadline };
        // The sockets first: they are what changes fastest.
        let listed = look.list(&mut self.namespaces);
        let held = look.hold(listed, &mut self.holders);
        if held.found.broken {
            self.namespaces.forget(&held.netns);
        }
        let recalled = look.recall(held);
        let described = look.describe(recalled, &mut self.supervisors, &mut self.containers);
        // What leaves here has no secrets in it, and is not too large.
        seal::seal(described)
    }
}

/// One bind that is looked into.
pub(crate) struct Look<'a> {
    host: &'a Host,
    records: &'a dyn Records,
    bind: &'a RawBind,
    /// Who has tried it; `None` if nobody has.
    by: Option<&'a RawFailure>,
    deadline: Instant,
}

/// What is on the port, and who was refused it.
struct Listed<'n> {
    failure: Failure,
    process: Process,
    netns: Netns,
    diag: Option<&'n mut dyn DiagSocket>,
    found: sockets::Found,
    gaps: Vec<Gap>,
}

/// The same with the processes that have the sockets open. The kernel's listing is not
/// needed any more.
struct Held {
    failure: Failure,
    process: Process,
    netns: Netns,
    ephemeral: Option<Ephemeral>,
    found: sockets::Found,
    searches: Searches,
    gaps: Vec<Gap>,
}

/// All that the host itself knows. What is not yet in it: units, supervisors, containers.
struct Recalled(Evidence);

/// All that can be told. There may be secrets in its texts still.
pub struct Described(Evidence);

impl<'a> Look<'a> {
    /// The namespace, the sockets on the port in it, and the failing process.
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
        Listed { failure, process: process.unwrap_or_default(), netns, diag, found, gaps }
    }

    /// Who has the sockets open, or why nobody has, and how the range of ephemeral ports
    /// is used if the bind asked for any port.
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

    /// What the owner record adds of the sockets, and of those who had the port before.
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
        // Only for the advice to set the option, which helps against anything but a
        // listener; and after what matters more.
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

    /// What managers and engines know of the processes.
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
            everything: self.by.is_none(),
        }
    }

    /// The failing process.
    fn pid(&self) -> Option<u32> {
        Some(self.by?.task.pid)
    }

    /// The socket that refused, where the hooks saw it.
    fn culprit(&self) -> Option<&'a RawCulprit> {
        self.by?.culprit.as_ref()
    }
}

/// In the middle between now and the deadline: until then goes on what would else leave
/// no time for what comes after it.
fn halfway(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

#[cfg(test)]
mod tests;
