//! Decides whether the condition is met for a port: a sock_diag listing, compared entry by
//! entry with the kernel's rules.

use std::{
    cell::OnceCell,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use crate::{
    conflict::{
        Kernel, Outcome,
        address::{End, Wildcards, equal},
    },
    enrich::{
        host::DiagSocket,
        inherited::{MOST_LOOKED_UP, complete},
        netns::again::Known,
        options::MOST_ASKED,
        sock_diag::{Entry, Query, protocol_number},
        sockets::{ListError, PATIENT, dump_once},
    },
    evidence::{Device, Failure, Family, Protocol, Socket, State},
    explain::Question,
    kernel::records::{NoRecords, Records},
};

mod standing;

pub use standing::{Kind, Standing};

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

/// Checks all sockets on the port.
///
/// # Errors
/// The kernel does not list its sockets, or not all of them.
pub fn look(
    diag: &mut dyn DiagSocket,
    sources: Sources<'_>,
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
    list(diag, &queries, sources, kernel, asked)
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
    list(diag, &[Query::Listeners], Sources::NONE, kernel, asked)
}

fn list(
    diag: &mut dyn DiagSocket,
    queries: &[Query],
    sources: Sources<'_>,
    kernel: Kernel,
    asked: &Asked,
) -> Result<Standing, ListError> {
    let walk = |diag: &mut dyn DiagSocket| {
        let mut judge = Judge::new(kernel, asked, sources);
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

/// What tells the options of connections, which the listing does not.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Opens the owner record of a running agent. It is opened for each check that needs it,
    /// because the record is no longer current after the agent exits.
    pub records: fn() -> Box<dyn Records>,
    /// Reads the current options of sockets that processes have open, where it can.
    pub current: &'a dyn Fn(&mut [Socket]),
}

impl Sources<'_> {
    const NONE: Self = Self { records: || Box::new(NoRecords), current: &|_| () };
}

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
    sources: Sources<'a>,
    records: OnceCell<Box<dyn Records>>,
    /// How many more entries may be looked up in the owner record.
    left: u32,
    /// Connections that processes have open. A process may have changed the options since they
    /// were recorded.
    open: Vec<Socket>,
}

impl<'a> Judge<'a> {
    fn new(kernel: Kernel, asked: &'a Asked, sources: Sources<'a>) -> Self {
        Self {
            kernel,
            asked,
            bind: asked.bind(),
            standing: Standing::default(),
            lasting: false,
            remaining_ms: 0,
            sources,
            records: OnceCell::new(),
            left: MOST_LOOKED_UP,
            open: Vec::new(),
        }
    }

    fn take(&mut self, row: Socket) {
        match self.asked {
            Asked::Free(_) | Asked::FreeAgain(_) => self.against_bind(row),
            Asked::Listening(at) => self.for_listening(at, row),
        }
    }

    /// Compares the bind with one socket.
    fn against_bind(&mut self, mut row: Socket) {
        if self.outcome(&row) == Outcome::Unknown && self.is_remnant(&row) {
            if row.inode.is_some() && self.open.len() < MOST_ASKED {
                self.open.push(row);
                return;
            }
            row = self.recorded(row);
        }
        self.judge(row);
    }

    fn is_remnant(&self, row: &Socket) -> bool {
        self.bind.protocol == Protocol::Tcp && !matches!(row.state, State::Listen | State::Bound)
    }

    /// Compares the bind with a connection that a process has open, and that was asked for its
    /// options. If it could not be asked, what was recorded is not certain.
    fn judge_open(&mut self, row: Socket) {
        let is_asked = row.reuseaddr.is_some();
        let row = if is_asked { row } else { self.recorded(row) };
        if is_asked || self.outcome(&row) != Outcome::Passes {
            self.judge(row);
        } else {
            self.standing.passed = self.standing.passed.saturating_add(1);
        }
    }

    /// Compares the bind with one socket, of which all is known that can be. Closed connections
    /// are presumed to have SO_REUSEADDR where nothing says otherwise, if the bind is to set it:
    /// its program has probably set it on the listener before, and connections inherit it from
    /// the listener. After a bind that failed because of a socket that nobody could see, nothing
    /// is presumed.
    fn judge(&mut self, mut row: Socket) {
        let presumes = matches!(self.asked, Asked::Free(at) if at.reuseaddr);
        let mut outcome = self.outcome(&row);
        if let (Outcome::Unknown, Asked::FreeAgain(failed)) = (outcome, self.asked) {
            row = failed.recalled(row);
            outcome = self.outcome(&row);
        }
        match outcome {
            Outcome::Passes => return,
            Outcome::Unknown if presumes && self.is_remnant(&row) => {
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
        let records = self.records.get_or_init(self.sources.records);
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

    fn end(mut self) -> Standing {
        let mut open = std::mem::take(&mut self.open);
        // Where another socket blocks the bind, they decide nothing.
        if self.standing.kinds.is_empty() && !open.is_empty() {
            (self.sources.current)(&mut open);
        }
        open.into_iter().for_each(|row| self.judge_open(row));
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
