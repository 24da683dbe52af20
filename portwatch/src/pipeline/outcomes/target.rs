//! What could not be bound, and whether what was bound later is that.

use std::net::IpAddr;

use portwatch_common::Source;

use crate::{
    decode::{Bound, RawBind, address_of, protocol_of, stage_of},
    event::Event,
    evidence::{Protocol, Stage},
};

/// An address in a network namespace, and the call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    netns: (Option<u64>, Option<u32>),
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    stage: Stage,
}

impl Target {
    /// That of a failed bind.
    pub fn of(bind: &RawBind) -> Self {
        Self {
            netns: netns(bind.netns_cookie, bind.netns_inode),
            protocol: bind.protocol,
            address: bind.address,
            port: bind.port,
            stage: bind.stage,
        }
    }

    /// That of failed binds that the kernel side has counted; `None` for what it never
    /// writes.
    pub fn of_source(source: &Source) -> Option<Self> {
        let (_, address) = address_of(source.family, source.address).ok()?;
        let cookie = Some(source.netns_cookie).filter(|&cookie| cookie != 0);
        let inode = Some(source.netns_inode).filter(|&inode| inode != 0);
        Some(Self {
            netns: netns(cookie, inode),
            protocol: protocol_of(source.protocol),
            address,
            port: source.port,
            stage: stage_of(source.stage).ok()?,
        })
    }

    /// That of an event.
    pub fn of_event(event: &Event) -> Self {
        Self {
            netns: netns(event.netns.cookie, event.netns.inode),
            protocol: event.failure.protocol,
            address: event.failure.address,
            port: event.failure.port,
            stage: event.failure.stage,
        }
    }

    /// Whether something was bound in the same namespace, by the same protocol.
    pub fn is_beside(&self, bound: &Bound) -> bool {
        self.protocol == bound.protocol
            && self.netns == netns(bound.netns_cookie, bound.netns_inode)
    }

    /// Whether that was what was wanted. Where listen(2) failed, only a listen will do.
    pub fn is_met_by(&self, bound: &Bound) -> bool {
        let same_family = self.address.is_ipv4() == bound.address.is_ipv4();
        self.port == bound.port
            && (self.address == bound.address || same_family && bound.address.is_unspecified())
            && (self.stage == Stage::Bind || bound.stage == Stage::Listen)
    }

    /// Whether that was another port of the same address.
    pub fn is_other(&self, bound: &Bound) -> bool {
        self.port != 0
            && bound.port != 0
            && self.port != bound.port
            && self.address == bound.address
    }

    /// Whether the hooks see when a socket of this protocol has been bound.
    pub fn shows_success(&self) -> bool {
        matches!(self.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Udplite)
    }
}

/// A cookie is enough; not every hook sees the inode as well.
fn netns(cookie: Option<u64>, inode: Option<u32>) -> (Option<u64>, Option<u32>) {
    (cookie, inode.filter(|_| cookie.is_none()))
}
