//! A refusal to evidence: all that the host can tell about it now. Never fails;
//! what cannot be had becomes a gap.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    decode::{RawCulprit, RawFailure},
    evidence::{
        Cgroup, Connections, Device, Evidence, Failure, Gap, Netns, Origin, Process, Protocol,
        Socket, State,
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
use host::{Host, NetnsRef};
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
    patience: Duration,
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
            patience: DEADLINE,
        }
    }

    /// Looks for as long as this into each bind: where somebody waits for the answer
    /// and nothing waits behind it, or where everything is slow.
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Looks for as long as `patience` into each bind, and takes out of command lines
    /// what `redaction` says.
    pub fn tune(&mut self, patience: Duration, redaction: Redaction) {
        self.patience = patience;
        self.host.redacting(redaction);
    }

    /// Takes out of command lines what `redaction` says.
    #[must_use]
    pub fn redacting(mut self, redaction: Redaction) -> Self {
        self.host.redacting(redaction);
        self
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
    pub fn socket(&self, place: &NetnsRef) -> io::Result<Box<dyn host::DiagSocket>> {
        self.host.sock_diag(place)
    }

    /// Whether Docker may be running here: it has a socket.
    pub fn has_docker(&self) -> bool {
        containers::has_docker(&self.host)
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

    /// Finds out what can be found out before the deadline.
    pub fn enrich(&mut self, raw: &RawFailure) -> Evidence {
        self.enrich_within(raw, self.patience)
    }

    /// Finds out what can be found out in as long as `patience`.
    pub fn enrich_within(&mut self, raw: &RawFailure, patience: Duration) -> Evidence {
        let deadline = Instant::now() + patience;
        self.host.begin((patience / 2).min(MOST_IN_VAIN));
        let (host, records) = (&self.host, &*self.records);
        let mut gaps = Vec::new();
        let mut failure = failure(raw, &mut gaps);
        // The sockets first: they are what changes fastest.
        let (netns, mut diag) = self.namespaces.enter(host, raw, deadline, &mut gaps);
        let search = sockets::Search {
            host,
            records,
            failure: &failure,
            culprit: raw.culprit.as_ref(),
            netns_cookie: raw.netns_cookie,
            everything: raw.is_untried(),
        };
        let mut found = match &mut diag {
            Some(diag) if raw.port != 0 => search.run(&mut **diag, halfway(deadline), &mut gaps),
            _ => sockets::Found::default(),
        };
        if let Some(culprit) = &raw.culprit {
            point_out(culprit, raw, &mut found);
        }
        let mut process = match raw.is_untried() {
            true => Process::default(),
            false => processes::failing(host, records, raw, &mut gaps),
        };
        record::recall_options(records, &mut found.sockets);
        let searches = self.holders.name(host, records, &mut found.sockets, deadline, &mut gaps);
        if let Some(diag) = diag.as_deref_mut().filter(|_| !found.broken) {
            let files = self.holders.files();
            let rows = &mut found.sockets;
            found.broken =
                unheld::explain(&search, diag, files, &searches, rows, deadline, &mut gaps);
        }
        if let Some(device) = &mut failure.device {
            device.name = diag.as_ref().and_then(|diag| diag.device_name(device.index));
        }
        let mut ephemeral = diag.as_ref().and_then(|diag| diag.ephemeral());
        if let (0, Some(range), Some(diag)) = (raw.port, &mut ephemeral, diag) {
            let files = self.holders.files();
            match exhaustion::usage(host, diag, files, range, raw.protocol, deadline) {
                Ok(usage) => range.usage = Some(usage),
                Err(why) => {
                    found.broken = true;
                    gaps.push(Gap::new("ephemeral.usage", why.to_string()));
                }
            }
        }
        options::ask(&mut found.sockets);
        record::recall_origin(host, records, &mut found.sockets);
        record::recall_arguments(host, records, &mut found.sockets);
        gaps.extend(record::recall_binder(host, records, &mut found.sockets, &searches));
        let [last_holder, previous_holder] = record::last_holders(host, records, raw);
        if found.broken {
            self.namespaces.forget(&netns);
        }
        let outgoing = records.origin(raw.port) == Some(Origin::Outgoing);
        if found.time_wait.count > 0 && !outgoing {
            found.time_wait.left_by = record::left_by([&last_holder, &previous_holder]);
        }
        // Only for the advice to set the option, which helps against anything but a
        // listener; and after what matters more.
        let left_over = found.time_wait.count > 0 || found.connections != Connections::default();
        let listens = found.sockets.iter().any(|socket| socket.state == State::Listen);
        let advised = raw.reuseaddr != Some(true) && !raw.is_untried();
        if advised && left_over && !listens && Instant::now() < deadline {
            process.runtime = runtime::of(host, &process, &raw.task);
        }
        let mut evidence = Evidence {
            time: host.wall_clock(raw.at_ns),
            kernel: host.release.clone(),
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
        };
        vouch::vouch_all(host, &mut evidence);
        self.supervisors.describe_all(host, &mut evidence, deadline);
        self.containers.describe_all(host, &mut evidence, deadline);
        netns::note_strangers(host, &mut evidence);
        containers::name_netns(host, &mut evidence);
        evidence.gaps.extend(host.unread());
        // The last step: what leaves here has no secrets in it, and is not too large.
        seal::seal(&mut evidence);
        evidence
    }
}

/// In the middle between now and the deadline: until then goes on what would else leave
/// no time for what comes after it.
fn halfway(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// What was asked of the kernel.
fn failure(raw: &RawFailure, gaps: &mut Vec<Gap>) -> Failure {
    for (what, known) in [
        ("failure.reuseaddr", raw.reuseaddr.is_some()),
        ("failure.uid", raw.socket_uid.is_some()),
        ("failure.device", raw.device.is_some()),
    ] {
        if !known {
            gaps.push(Gap::new(what, "the hooks cannot read it on this kernel"));
        }
    }
    // The kernel takes the device from the scope id only after the tracepoint set
    // has seen the attempt, and there is always one.
    if needs_device(raw.address) && raw.device == Some(0) {
        gaps.push(Gap::new("failure.device", "the hooks do not see the address's scope id"));
    }
    if !raw.address_seen {
        gaps.push(Gap::new("failure.address", "an IPv6 address is out of the hooks' reach here"));
    }
    Failure {
        stage: raw.stage,
        errno: "EADDRINUSE".to_owned(),
        protocol: raw.protocol,
        family: raw.family,
        address: raw.address,
        port: raw.port,
        device: raw.device.filter(|&index| index != 0).map(|index| Device { index, name: None }),
        reuseaddr: raw.reuseaddr,
        reuseport: raw.reuseport,
        v6only: raw.v6only,
        uid: raw.socket_uid,
        cookie: raw.socket_cookie,
    }
}

/// Whether an address means nothing without a device (`__ipv6_addr_needs_scope_id`):
/// link-local ones, and multicast to one's own link or device.
fn needs_device(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return false };
    let [first, second, ..] = v6.octets();
    v6.is_unicast_link_local() || (first == 0xff && matches!(second & 0xf, 1 | 2))
}

/// Adds to the row of the socket that refused what only the kernel's own check
/// could see of it; adds the row itself where netlink does not list it.
fn point_out(culprit: &RawCulprit, raw: &RawFailure, found: &mut sockets::Found) {
    let tcp = raw.protocol == Protocol::Tcp;
    let Some(state) = sock_diag::state_of(culprit.state, tcp) else { return };
    found.sockets.iter_mut().for_each(|socket| socket.refused = Some(false));
    let is_it = |socket: &Socket, state| match culprit.cookie {
        Some(cookie) => socket.cookie == Some(cookie),
        None => socket.local.ip() == culprit.address && socket.state == state,
    };
    // Where TIME-WAIT is all that the check sees of it, netlink may list FIN-WAIT-2.
    let states = [Some(state), (state == State::TimeWait).then_some(State::FinWait2)];
    let listed = states
        .into_iter()
        .flatten()
        .find_map(|state| found.sockets.iter().position(|socket| is_it(socket, state)));
    let place = listed.or_else(|| {
        let local = SocketAddr::new(culprit.address, raw.port);
        found.add(Socket::bare(state, local, culprit.cookie));
        found.sockets.iter().position(|socket| is_it(socket, state))
    });
    if let Some(socket) = place.and_then(|place| found.sockets.get_mut(place)) {
        socket.refused = Some(true);
        socket.inode = socket.inode.or(culprit.inode);
        socket.reuseaddr = Some(culprit.reuseaddr);
        socket.reuseport = Some(culprit.reuseport);
        socket.v6only = socket.v6only.or(culprit.v6only);
        socket.uid = socket.uid.or(culprit.uid);
    }
}

#[cfg(test)]
mod tests;
