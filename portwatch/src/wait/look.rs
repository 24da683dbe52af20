//! Decides whether the condition is met for a port: a sock_diag listing, compared entry by
//! entry with the kernel's rules.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::{
    conflict::{
        Kernel, Outcome,
        address::{End, Wildcards, equal},
    },
    diagnose::words,
    enrich::{
        host::DiagSocket,
        inherited::{MOST_LOOKED_UP, complete},
        netns::again::Known,
        sock_diag::{Entry, Query, protocol_number},
        sockets::{ListError, PATIENT, dump_once},
    },
    evidence::{Device, Failure, Family, Protocol, Socket, State},
    explain::Question,
    kernel::records::{NoRecords, Records},
};

/// The condition to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A bind would succeed, in the network namespace of this process.
    Free(Question),
    /// A TCP socket is listening, or a UDP socket is bound, in the same namespace.
    Listening(Question),
    /// The bind that failed would succeed now, in the namespace where it failed.
    FreeAgain(Box<FailedBind>),
}

/// A bind that failed, and what is known about the listener that was on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedBind {
    /// What was asked of the kernel.
    pub failure: Failure,
    /// `SO_REUSEADDR` of the listener. All its connections have the same value, which the
    /// kernel does not report for connections.
    pub reuseaddr: Option<bool>,
    /// The network namespace, which may have been removed.
    pub netns: Known,
}

impl FailedBind {
    /// Returns the socket, with the options of the listener that it may come from.
    fn recalled(&self, mut socket: Socket) -> Socket {
        if self.failure.protocol == Protocol::Tcp {
            socket.reuseaddr = socket.reuseaddr.or(self.reuseaddr);
        }
        socket
    }
}

impl Asked {
    /// Returns the protocol.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Free(at) | Self::Listening(at) => at.protocol,
            Self::FreeAgain(failed) => failed.failure.protocol,
        }
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Free(at) | Self::Listening(at) => at.port,
            Self::FreeAgain(failed) => failed.failure.port,
        }
    }

    /// Returns the address and the interface; `None` means any.
    pub fn place(&self) -> (Option<IpAddr>, Option<&Device>) {
        match self {
            Self::Free(at) | Self::Listening(at) => (at.address, at.device.as_ref()),
            Self::FreeAgain(failed) => {
                (Some(failed.failure.address), failed.failure.device.as_ref())
            }
        }
    }

    /// Returns whether it is TCP.
    pub fn is_tcp(&self) -> bool {
        self.protocol() == Protocol::Tcp
    }

    /// Returns whether the condition is that a bind would succeed, not that a listener is
    /// there.
    pub fn is_free(&self) -> bool {
        !matches!(self, Self::Listening(_))
    }

    /// Returns the bind in question.
    fn bind(&self) -> Failure {
        match self {
            Self::Free(at) | Self::Listening(at) => bind(at),
            Self::FreeAgain(failed) => failed.failure.clone(),
        }
    }
}

/// Returns a bind that sets only the options in question. Any address means `::`, which
/// includes IPv4: whatever blocks `0.0.0.0` blocks `::` too.
fn bind(at: &Question) -> Failure {
    let address = at.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    Failure {
        // A bind to a specific IPv6 address does not include IPv4 (`__inet6_bind`).
        v6only: is_v6_alone(address).map(|alone| alone && !address.is_unspecified()),
        // The kernel compares it only for sockets that set SO_REUSEPORT.
        uid: Some(0),
        device: at.device.clone(),
        ..Failure::untried(at.protocol, address, at.port, at.reuseaddr)
    }
}

/// Returns whether packets to the address and port in question reach the socket.
fn reaches(at: &Question, socket: &Socket) -> bool {
    let index = |device: &Option<Device>| device.as_ref().map(|device| device.index);
    let (its, asked) = (index(&socket.device), index(&at.device));
    if asked.is_some() && its.is_some() && its != asked {
        return false;
    }
    let Some(address) = at.address else { return true };
    let own = socket.local.ip();
    let own = End::new(Family::of(own), own, socket.v6only == Some(true));
    let asked = End::new(Family::of(address), address, is_v6_alone(address) == Some(true));
    equal(own, asked, Wildcards::First)
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
    /// Closing connections that block the bind unless they set SO_REUSEADDR, which the kernel
    /// does not report.
    pub passed: u32,
    /// The time until the kernel's own timers have removed the last blocking socket (a lower
    /// bound).
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
    records: OpenRecords,
    kernel: Kernel,
    asked: &Asked,
) -> Result<Standing, ListError> {
    let queries = match protocol_number(asked.protocol()) {
        _ if asked.is_tcp() => vec![Query::Tcp],
        Some(protocol) => {
            [Family::Ipv4, Family::Ipv6].map(|family| Query::Other { protocol, family }).to_vec()
        }
        // A protocol that cannot be listed does not delay a user who has seen which bind failed.
        None if matches!(asked, Asked::FreeAgain(_)) => Vec::new(),
        None => return Err(ListError::Protocol),
    };
    list(diag, &queries, records, kernel, asked)
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
    list(diag, &[Query::Listeners], || Box::new(NoRecords), kernel, asked)
}

fn list(
    diag: &mut dyn DiagSocket,
    queries: &[Query],
    records: OpenRecords,
    kernel: Kernel,
    asked: &Asked,
) -> Result<Standing, ListError> {
    let walk = |diag: &mut dyn DiagSocket| {
        let mut judge = Judge::new(kernel, asked, records);
        let mut torn = false;
        for query in queries {
            let deadline = Instant::now() + PATIENT;
            let take = |entry: Entry| judge.take(entry.into());
            torn |= dump_once(diag, *query, asked.port(), deadline, take)?;
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

/// Opens the owner record of a running agent. It is opened for each check that needs it,
/// because the record is no longer current after the agent exits.
pub type OpenRecords = fn() -> Box<dyn Records>;

/// Judges entry by entry.
struct Judge<'a> {
    kernel: Kernel,
    asked: &'a Asked,
    /// The bind to compare with every entry.
    bind: Failure,
    standing: Standing,
    /// Whether one of the blocking sockets can be closed only by its owner.
    lasting: bool,
    remaining_ms: u64,
    open: OpenRecords,
    records: OnceCell<Box<dyn Records>>,
    /// How many more entries may be looked up in the owner record.
    left: u32,
}

impl<'a> Judge<'a> {
    fn new(kernel: Kernel, asked: &'a Asked, open: OpenRecords) -> Self {
        Self {
            kernel,
            asked,
            bind: asked.bind(),
            standing: Standing::default(),
            lasting: false,
            remaining_ms: 0,
            open,
            records: OnceCell::new(),
            left: MOST_LOOKED_UP,
        }
    }

    fn take(&mut self, row: Socket) {
        match self.asked {
            Asked::Free(at) => self.against_bind(at.reuseaddr, row),
            // The bind failed because of a socket that nobody could see, so nothing is assumed.
            Asked::FreeAgain(_) => self.against_bind(false, row),
            Asked::Listening(at) => self.for_listening(at, row),
        }
    }

    /// Compares the bind with one socket. With `presumes`, closed connections count as having
    /// set SO_REUSEADDR where nothing says otherwise: a program that sets the option now has
    /// probably set it on the listener before, and connections inherit it from the listener.
    fn against_bind(&mut self, presumes: bool, mut row: Socket) {
        let is_tcp = self.bind.protocol == Protocol::Tcp;
        let is_remnant = is_tcp && !matches!(row.state, State::Listen | State::Bound);
        let mut outcome = self.outcome(&row);
        if outcome == Outcome::Unknown && is_remnant {
            row = self.recorded(row);
            outcome = self.outcome(&row);
        }
        if let (Outcome::Unknown, Asked::FreeAgain(failed)) = (outcome, self.asked) {
            row = failed.recalled(row);
            outcome = self.outcome(&row);
        }
        match outcome {
            Outcome::Passes => return,
            Outcome::Unknown if presumes && is_remnant => {
                self.standing.passed = self.standing.passed.saturating_add(1);
                return;
            }
            Outcome::Unknown | Outcome::Refused => {}
        }
        match row.expires_ms {
            Some(ms) => self.remaining_ms = self.remaining_ms.max(ms),
            None => self.lasting = true,
        }
        self.standing.add(row);
    }

    fn outcome(&self, row: &Socket) -> Outcome {
        Outcome::of(self.kernel, &self.bind, [row])
    }

    /// Returns the socket with the options that a running agent has recorded.
    fn recorded(&mut self, row: Socket) -> Socket {
        let Some(left) = self.left.checked_sub(1) else { return row };
        self.left = left;
        let records = self.records.get_or_init(self.open);
        let options = row.cookie.and_then(|cookie| records.connection(cookie, row.local.port()));
        complete(row, options)
    }

    fn for_listening(&mut self, at: &Question, row: Socket) {
        let open = if at.protocol == Protocol::Tcp { State::Listen } else { State::Unconn };
        if row.state == open && reaches(at, &row) {
            if !self.standing.met {
                self.standing.kinds.clear();
            }
            self.standing.met = true;
            self.standing.add(row);
        } else if !self.standing.met && matches!(row.state, State::Listen | State::Bound) {
            self.standing.add(row);
        }
    }

    fn end(self) -> Standing {
        let mut standing = self.standing;
        if self.asked.is_free() {
            standing.met = standing.kinds.is_empty();
            let ends = !standing.met && !self.lasting;
            standing.ends_in = ends.then(|| Duration::from_millis(self.remaining_ms));
        }
        standing
    }
}

#[cfg(test)]
mod tests;
