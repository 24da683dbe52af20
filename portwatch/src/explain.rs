//! Collects the evidence and the diagnosis of a failed bind for a bind that no process has
//! attempted.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use jiff::Timestamp;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

pub use crate::conflict::Outcome;
use crate::{
    conflict::Kernel,
    decode::RawBind,
    diagnose::{Diagnosis, diagnose},
    enrich::{Enricher, host::boottime_ns},
    event::Host,
    evidence::{
        Connections, Device, Ephemeral, Evidence, Failure, Family, Gap, LastHolder, Netns,
        Protocol, Socket, Stage, TimeWait,
    },
};

/// The schema of [`Explanation`].
pub const EXPLANATION: &str = "portwatch/explanation/v1";

/// The bind in question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Question {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address; `None` for all addresses, IPv4 and IPv6.
    pub address: Option<IpAddr>,
    /// The interface of the bind: the scope of a link-local address, or
    /// `SO_BINDTODEVICE`; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// The port.
    pub port: u16,
    /// Whether the program sets `SO_REUSEADDR`.
    pub reuseaddr: bool,
}

/// The answer for one port in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Explanation {
    /// `portwatch/explanation/v1`.
    pub schema: String,
    /// When the evidence was collected.
    #[cfg_attr(test, schemars(with = "crate::evidence::Time"))]
    pub time: Timestamp,
    /// The host.
    pub host: Host,
    /// The bind in question.
    pub asked: Question,
    /// The result that the bind would have.
    pub bind: Outcomes,
    /// The network namespace.
    pub netns: Netns,
    /// Every socket on the port in that namespace.
    pub sockets: Vec<Socket>,
    /// All TIME-WAIT entries on the port.
    pub time_wait: TimeWait,
    /// Number of connections on the port.
    pub connections: Connections,
    /// The ephemeral port range of the namespace.
    pub ephemeral: Option<Ephemeral>,
    /// The last holder of the port, from a running agent's owner record.
    pub last_holder: Option<LastHolder>,
    /// The holder before that one.
    pub previous_holder: Option<LastHolder>,
    /// Missing evidence, and why it is missing.
    pub gaps: Vec<Gap>,
    /// What blocks the bind; `None` if nothing does.
    pub diagnosis: Option<Diagnosis>,
}

/// The result of a bind by the kernel's conflict rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Outcomes {
    /// The result for a bind that does not set `SO_REUSEADDR`.
    pub without_reuseaddr: Outcome,
    /// The result for a bind that sets `SO_REUSEADDR`.
    pub with_reuseaddr: Outcome,
}

impl Explanation {
    /// Returns the result of the bind in question.
    pub fn outcome(&self) -> Outcome {
        match self.asked.reuseaddr {
            true => self.bind.with_reuseaddr,
            false => self.bind.without_reuseaddr,
        }
    }
}

/// Collects the evidence within `patience`, in a namespace that the enricher has entered, and
/// applies the rules to it.
pub fn explain(
    enricher: &mut Enricher,
    host: &Host,
    asked: Question,
    netns: &Netns,
    patience: Duration,
) -> Explanation {
    let evidence = enricher.look_at(&untried(&asked, netns), patience);
    answer(host, asked, evidence)
}

/// Applies the rules to the evidence.
pub(crate) fn answer(host: &Host, asked: Question, mut evidence: Evidence) -> Explanation {
    let kernel = Kernel::of(&evidence.kernel);
    let outcome = |bind: &Failure| Outcome::of(kernel, bind, &evidence.sockets);
    // That the kernel does not list sockets that are bound but not listening is a separate gap.
    let unlisted = evidence.gaps.iter().any(|gap| gap.what.is_the_listing());
    let best = if unlisted { Outcome::Unknown } else { Outcome::Passes };
    let worst = |reuseaddr: bool| {
        let outcomes = binds(&asked, reuseaddr).map(|bind| outcome(&bind));
        outcomes.fold(best, Outcome::max)
    };
    let bind = Outcomes { without_reuseaddr: worst(false), with_reuseaddr: worst(true) };
    // Of two binds that fail, the one whose diagnosis names the blocking socket more directly
    // is chosen.
    let is_its_own =
        |bind: &Failure| evidence.sockets.iter().any(|socket| socket.local.ip() == bind.address);
    let worst_bind =
        binds(&asked, asked.reuseaddr).max_by_key(|bind| (outcome(bind), is_its_own(bind)));
    let in_the_way = worst_bind.filter(|bind| outcome(bind) != Outcome::Passes);
    let diagnosis = in_the_way.map(|bind| {
        evidence.failure = bind;
        diagnose(&evidence)
    });
    Explanation {
        schema: EXPLANATION.to_owned(),
        time: evidence.time,
        host: host.clone(),
        asked,
        bind,
        netns: evidence.netns,
        sockets: evidence.sockets,
        time_wait: evidence.time_wait,
        connections: evidence.connections,
        ephemeral: evidence.ephemeral,
        last_holder: evidence.last_holder,
        previous_holder: evidence.previous_holder,
        gaps: evidence.gaps,
        diagnosis,
    }
}

/// Returns the binds of a question: one for each family if the question has no address, the
/// more usual family first.
fn binds(asked: &Question, reuseaddr: bool) -> impl DoubleEndedIterator<Item = Failure> {
    let untried = move |address: IpAddr, v6only| Failure {
        v6only: address.is_ipv6().then_some(v6only),
        device: asked.device.clone(),
        uid: Some(geteuid().as_raw()),
        ..Failure::untried(asked.protocol, address, asked.port, reuseaddr)
    };
    let addresses = match asked.address {
        Some(address) => vec![(address, false)],
        None => vec![(Ipv4Addr::UNSPECIFIED.into(), false), (Ipv6Addr::UNSPECIFIED.into(), true)],
    };
    // The search for the worst result returns the last of equal ones.
    addresses.into_iter().rev().map(move |(address, v6only)| untried(address, v6only))
}

/// Returns the bind in question, as the hooks would have seen it.
fn untried(asked: &Question, netns: &Netns) -> RawBind {
    let address = asked.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    RawBind {
        at_ns: boottime_ns(),
        stage: Stage::Bind,
        protocol: asked.protocol,
        family: Family::of(address),
        address,
        address_seen: true,
        port: asked.port,
        device: Some(asked.device.as_ref().map_or(0, |device| device.index)),
        reuseaddr: Some(asked.reuseaddr),
        reuseport: Some(false),
        v6only: address.is_ipv6().then_some(false),
        socket_uid: Some(geteuid().as_raw()),
        socket_cookie: None,
        netns_inode: netns.inode,
        netns_cookie: netns.cookie,
    }
}
