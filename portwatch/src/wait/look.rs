//! What is on a port, and whether the condition holds: a sock_diag listing,
//! judged row by row with the kernel's rules.

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

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A bind would succeed.
    Free {
        /// A bind with SO_REUSEADDR.
        reuseaddr: bool,
    },
    /// The bind that failed would succeed now.
    FreeAgain(Box<FailedBind>),
    /// A TCP socket listens, a UDP socket is bound.
    Listening,
}

/// A bind that failed, and what is known of the listener that was on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedBind {
    /// What was asked of the kernel.
    pub failure: Failure,
    /// `SO_REUSEADDR` of the listener, which all its connections have as well: of
    /// those the kernel tells it to nobody.
    pub reuseaddr: Option<bool>,
}

/// In which network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of this process.
    Own,
    /// One of before, which may be gone.
    Known(Known),
}

/// What is asked of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where.
    pub place: Place,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// At this address; `None` for any.
    pub address: Option<IpAddr>,
    /// On this interface alone.
    pub device: Option<Device>,
    /// The port.
    pub port: u16,
    /// What should be so.
    pub condition: Condition,
}

impl FailedBind {
    /// The socket with what is known of the listener that it may come from.
    fn recalled(&self, mut socket: Socket) -> Socket {
        if self.failure.protocol == Protocol::Tcp {
            socket.reuseaddr = socket.reuseaddr.or(self.reuseaddr);
        }
        socket
    }
}

impl Asked {
    /// Whether a bind that failed would succeed now, in the namespace where it failed.
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

    /// Whether it is TCP.
    pub fn is_tcp(&self) -> bool {
        self.protocol == Protocol::Tcp
    }

    /// The address to bind. Any address is `::`, and IPv4 with it: whatever is in
    /// the way of `0.0.0.0` is in the way of that too.
    fn address(&self) -> IpAddr {
        self.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into())
    }

    /// The bind that is asked about; it sets no options but the one.
    fn bind(&self, reuseaddr: bool) -> Failure {
        let address = self.address();
        Failure {
            // A bind to a specific address is IPv6's alone (`__inet6_bind`).
            v6only: is_v6_alone(address).map(|alone| alone && !address.is_unspecified()),
            // Asked only of those that set SO_REUSEPORT.
            uid: Some(0),
            device: self.device.clone(),
            ..Failure::untried(self.protocol, address, self.port, reuseaddr)
        }
    }
}

/// Whether an IPv6 address is no IPv4 address in IPv6's form.
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
    /// When the kernel forgets the last of them, in milliseconds (a lower bound).
    pub max_remaining_ms: Option<u64>,
}

/// How a port stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the condition holds.
    pub met: bool,
    /// What is in the way of the bind; or who listens; or who is on the port and
    /// does not listen where it was asked.
    pub kinds: BTreeMap<State, Kind>,
    /// Remnants of connections that the bind passes only if they had
    /// SO_REUSEADDR, which the kernel tells nobody.
    pub passed: u32,
    /// All that is in the way ends by the kernel's own timers, the last after
    /// this (a lower bound).
    pub ends_in: Option<Duration>,
}

impl Standing {
    /// How many are in TIME-WAIT, and how long the last still is, in milliseconds.
    pub fn time_wait(&self) -> (u32, Option<u64>) {
        let kind = self.kinds.get(&State::TimeWait);
        kind.map_or((0, None), |kind| (kind.count, kind.max_remaining_ms))
    }

    /// The sockets in words; `None` if there are none.
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

/// Looks at everything on the port.
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
        // What cannot be listed holds nobody up who has been told what failed.
        None if matches!(asked.condition, Condition::FreeAgain(_)) => Vec::new(),
        None => return Err(ListError::Protocol),
    };
    list(diag, &queries, kernel, asked)
}

/// Looks at TCP listeners alone, which costs next to nothing on any machine.
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
    // Once more if the table changed under the walk; after that what is seen counts,
    // or a busy server would never be seen at all.
    match walk(diag)? {
        (standing, false) => Ok(standing),
        (_, true) => Ok(walk(diag)?.0),
    }
}

/// Judges row after row. Pure.
struct Judge<'a> {
    kernel: Kernel,
    asked: &'a Asked,
    /// The bind that is to pass every row.
    bind: Failure,
    standing: Standing,
    /// A socket is in the way that nothing but its owner ends.
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
            // It has met what nobody could see, so that nothing is taken for granted.
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
            // Whoever sets the option has set it on the listener before, from which
            // its connections have it.
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

    /// Whether what is sent to the address asked for arrives at the socket.
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
