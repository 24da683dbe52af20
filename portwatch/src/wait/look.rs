//! Decides whether the condition is met for a port: a sock_diag listing, compared entry by
//! entry with the kernel's rules.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::{
    conflict::{
        self, Kernel, Verdict,
        address::{End, Wildcards, equal},
    },
    diagnose::words,
    enrich::{
        host::DiagSocket,
        netns::again::Known,
        sock_diag::{Entry, Query, protocol_number},
        sockets::{ListError, PATIENT, dump_once},
    },
    evidence::{Device, Failure, Family, Protocol, Socket, State},
};

/// The condition to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A bind would succeed.
    Free {
        /// A bind with SO_REUSEADDR.
        reuseaddr: bool,
    },
    /// The bind that failed would succeed now.
    FreeAgain(Box<FailedBind>),
    /// A TCP socket is listening, a UDP socket is bound.
    Listening,
}

/// A bind that failed, and what is known of the previous listener on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedBind {
    /// The request.
    pub failure: Failure,
    /// `SO_REUSEADDR` of the listener, which all its connections inherit: the kernel does not
    /// report it for connections.
    pub reuseaddr: Option<bool>,
}

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This process's.
    Own,
    /// A recorded one, which may have been removed.
    Known(Known),
}

/// A port and its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The namespace.
    pub place: Place,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address; `None` for any.
    pub address: Option<IpAddr>,
    /// The interface, if the bind is limited to one.
    pub device: Option<Device>,
    /// The port.
    pub port: u16,
    /// The condition.
    pub condition: Condition,
}

impl FailedBind {
    /// Returns the socket with what is known of the listener that it may come from.
    fn recalled(&self, mut socket: Socket) -> Socket {
        if self.failure.protocol == Protocol::Tcp {
            socket.reuseaddr = socket.reuseaddr.or(self.reuseaddr);
        }
        socket
    }
}

impl Asked {
    /// Creates the question whether a bind that failed would succeed now, in the namespace
    /// where it failed.
    pub fn again(failed: FailedBind, place: Known) -> Self {
        let Failure { protocol, address, ref device, port, .. } = failed.failure;
        Self {
            place: Place::Known(place),
            protocol,
            address: Some(address),
            device: device.clone(),
            port,
            condition: Condition::FreeAgain(Box::new(failed)),
        }
    }

    /// Returns whether it is TCP.
    pub fn is_tcp(&self) -> bool {
        self.protocol == Protocol::Tcp
    }

    /// Returns the address to bind. Any address is `::`, which includes IPv4: whatever blocks
    /// `0.0.0.0` blocks `::` too.
    fn address(&self) -> IpAddr {
        self.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into())
    }

    /// Returns the bind in question; SO_REUSEADDR is the only option it may set.
    fn bind(&self, reuseaddr: bool) -> Failure {
        let address = self.address();
        Failure {
            // A bind to a specific address is IPv6 only (`__inet6_bind`).
            v6only: is_v6_alone(address).map(|alone| alone && !address.is_unspecified()),
            // Relevant only for binds that set SO_REUSEPORT.
            uid: Some(0),
            device: self.device.clone(),
            ..Failure::untried(self.protocol, address, self.port, reuseaddr)
        }
    }
}

/// Returns whether an IPv6 address is not an IPv4-mapped one.
fn is_v6_alone(address: IpAddr) -> Option<bool> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address.to_ipv4_mapped().is_none()),
    }
}

/// Sockets of one state on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How many.
    pub count: u32,
    /// One of them.
    pub example: Socket,
    /// Milliseconds until the kernel removes the last of them (a lower bound).
    pub max_remaining_ms: Option<u64>,
}

/// The state of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the condition is met.
    pub met: bool,
    /// The sockets that block the bind; or the listeners; or the sockets on the port that do
    /// not listen on the address.
    pub kinds: BTreeMap<State, Kind>,
    /// Closing connections that the bind passes only if they had SO_REUSEADDR, which the
    /// kernel does not report.
    pub passed: u32,
    /// The kernel's own timers end all that blocks, the last after this time (a lower bound).
    pub ends_in: Option<Duration>,
}

impl Standing {
    /// Returns how many are in TIME-WAIT, and the remaining time of the last, in milliseconds.
    pub fn time_wait(&self) -> (u32, Option<u64>) {
        let kind = self.kinds.get(&State::TimeWait);
        kind.map_or((0, None), |kind| (kind.count, kind.max_remaining_ms))
    }

    /// Returns the sockets as text; `None` if there are none.
    pub fn words(&self) -> Option<String> {
        let kinds: Vec<_> = self.kinds.iter().map(|(state, kind)| kind.words(*state)).collect();
        (!kinds.is_empty()).then(|| kinds.join("; "))
    }

    fn add(&mut self, socket: Socket) {
        let remaining = socket.expires_ms;
        let kind = self.kinds.entry(socket.state);
        let kind = kind.or_insert(Kind { count: 0, example: socket, max_remaining_ms: None });
        kind.count = kind.count.saturating_add(1);
        kind.max_remaining_ms = kind.max_remaining_ms.max(remaining);
    }
}

impl Kind {
    fn words(&self, state: State) -> String {
        match (state, self.max_remaining_ms) {
            (State::TimeWait, Some(0)) => format!("{} in {state}, about to end", self.count),
            (State::TimeWait, Some(ms)) => {
                format!("{} in {state}, the last ends in {} s", self.count, words::seconds(ms))
            }
            _ if self.count == 1 => words::socket(&self.example).to_string(),
            _ => format!("{} in {state}, one of them {}", self.count, words::ends(&self.example)),
        }
    }
}

/// Checks all sockets on the port.
///
/// # Errors
/// The kernel does not list its sockets, or not all of them.
pub fn look(
    diag: &mut dyn DiagSocket,
    kernel: Kernel,
    asked: &Asked,
) -> Result<Standing, ListError> {
    let queries = match protocol_number(asked.protocol) {
        _ if asked.is_tcp() => vec![Query::Tcp],
        Some(protocol) => {
            [Family::Ipv4, Family::Ipv6].map(|family| Query::Other { protocol, family }).to_vec()
        }
        // A bind that failed has been explained already: sockets that cannot be listed do not
        // delay the retry.
        None if matches!(asked.condition, Condition::FreeAgain(_)) => Vec::new(),
        None => return Err(ListError::Protocol),
    };
    list(diag, &queries, kernel, asked)
}

/// Checks TCP listeners only, which is cheap on any machine.
///
/// # Errors
/// As [`look`].
pub fn listeners(
    diag: &mut dyn DiagSocket,
    kernel: Kernel,
    asked: &Asked,
) -> Result<Standing, ListError> {
    list(diag, &[Query::Listeners], kernel, asked)
}

fn list(
    diag: &mut dyn DiagSocket,
    queries: &[Query],
    kernel: Kernel,
    asked: &Asked,
) -> Result<Standing, ListError> {
    let walk = |diag: &mut dyn DiagSocket| {
        let mut judge = Judge::new(kernel, asked);
        let mut torn = false;
        for query in queries {
            let deadline = Instant::now() + PATIENT;
            let take = |entry: Entry| judge.take(entry.into());
            torn |= dump_once(diag, *query, asked.port, deadline, take)?;
        }
        Ok::<_, ListError>((judge.end(), torn))
    };
    // Repeated once if the table changed during the walk. After that the result counts,
    // because on a busy server every walk may be disturbed.
    match walk(diag)? {
        (standing, false) => Ok(standing),
        (_, true) => Ok(walk(diag)?.0),
    }
}

/// Judges entry by entry. Pure.
struct Judge<'a> {
    kernel: Kernel,
    asked: &'a Asked,
    /// The bind to compare with every entry.
    bind: Failure,
    standing: Standing,
    /// Whether a socket blocks that only its owner can close.
    lasting: bool,
    remaining_ms: u64,
}

impl<'a> Judge<'a> {
    fn new(kernel: Kernel, asked: &'a Asked) -> Self {
        let bind = match &asked.condition {
            Condition::Free { reuseaddr } => asked.bind(*reuseaddr),
            Condition::FreeAgain(failed) => failed.failure.clone(),
            Condition::Listening => asked.bind(false),
        };
        Self { kernel, asked, bind, standing: Standing::default(), lasting: false, remaining_ms: 0 }
    }

    fn take(&mut self, row: Socket) {
        match &self.asked.condition {
            Condition::Free { reuseaddr } => self.against_bind(*reuseaddr, row),
            // The bind has failed because of what could not be seen, so nothing is assumed.
            Condition::FreeAgain(failed) => self.against_bind(false, failed.recalled(row)),
            Condition::Listening => self.for_listening(row),
        }
    }

    fn against_bind(&mut self, reuseaddr: bool, row: Socket) {
        let is_remnant = self.asked.is_tcp() && !matches!(row.state, State::Listen | State::Bound);
        match conflict::judge(self.kernel, &self.bind, &row) {
            Verdict::Allows => return,
            // It is on no list of owners, unless it is a rare kind of child.
            Verdict::MayRefuse(_) if row.state == State::SynRecv => return,
            // A program that sets the option has set it on the listener too, from which its
            // connections inherit it.
            Verdict::MayRefuse(_) if reuseaddr && is_remnant => {
                self.standing.passed = self.standing.passed.saturating_add(1);
                return;
            }
            Verdict::Refuses(_) | Verdict::MayRefuse(_) => {}
        }
        match row.expires_ms {
            Some(ms) => self.remaining_ms = self.remaining_ms.max(ms),
            None => self.lasting = true,
        }
        self.standing.add(row);
    }

    fn for_listening(&mut self, row: Socket) {
        let open = if self.asked.is_tcp() { State::Listen } else { State::Unconn };
        if row.state == open && self.takes_in(&row) {
            if !self.standing.met {
                self.standing.kinds.clear();
            }
            self.standing.met = true;
            self.standing.add(row);
        } else if !self.standing.met && matches!(row.state, State::Listen | State::Bound) {
            self.standing.add(row);
        }
    }

    /// Returns whether the socket receives what is sent to the requested address.
    fn takes_in(&self, row: &Socket) -> bool {
        let index = |device: &Option<Device>| device.as_ref().map(|device| device.index);
        let (its, asked) = (index(&row.device), index(&self.asked.device));
        if asked.is_some() && its.is_some() && its != asked {
            return false;
        }
        let Some(address) = self.asked.address else { return true };
        let own = row.local.ip();
        let own = End::new(Family::of(own), own, row.v6only == Some(true));
        let asked = End::new(Family::of(address), address, is_v6_alone(address) == Some(true));
        equal(own, asked, Wildcards::First)
    }

    fn end(self) -> Standing {
        let mut standing = self.standing;
        if self.asked.condition != Condition::Listening {
            standing.met = standing.kinds.is_empty();
            let ends = !standing.met && !self.lasting;
            standing.ends_in = ends.then(|| Duration::from_millis(self.remaining_ms));
        }
        standing
    }
}

#[cfg(test)]
mod tests;
