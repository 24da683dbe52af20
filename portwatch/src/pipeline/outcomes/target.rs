//! The address of a failed bind, and whether a later bind is at this address.

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
    /// Returns the target of a failed bind.
    pub fn of(bind: &RawBind) -> Self {
        Self {
            netns: netns(bind.netns_cookie, bind.netns_inode),
            protocol: bind.protocol,
            address: bind.address,
            port: bind.port,
            stage: bind.stage,
        }
    }

    /// Returns the target of failed binds that the kernel side has counted, or `None` for
    /// values that it never writes.
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

    /// Returns the target of an event.
    pub fn of_event(event: &Event) -> Self {
        Self {
            netns: netns(event.netns.cookie, event.netns.inode),
            protocol: event.failure.protocol,
            address: event.failure.address,
            port: event.failure.port,
            stage: event.failure.stage,
        }
    }

    /// Returns whether a bind was in the same namespace and of the same protocol.
    pub fn is_beside(&self, bound: &Bound) -> bool {
        self.protocol == bound.protocol
            && self.netns == netns(bound.netns_cookie, bound.netns_inode)
    }

    /// Returns whether a bind is at this address. After a failed listen, only a listen counts.
    pub fn is_met_by(&self, bound: &Bound) -> bool {
        let same_family = self.address.is_ipv4() == bound.address.is_ipv4();
        self.port == bound.port
            && (self.address == bound.address || same_family && bound.address.is_unspecified())
            && (self.stage == Stage::Bind || bound.stage == Stage::Listen)
    }

    /// Returns whether a bind is at another port of the same address. A server that continues with
    /// only a port at another address (metrics on the loopback address) has lost this one.
    pub fn is_other(&self, bound: &Bound) -> bool {
        self.port != 0
            && bound.port != 0
            && self.port != bound.port
            && self.address == bound.address
    }

    /// Returns whether the hooks see successful binds of this protocol.
    pub fn shows_success(&self) -> bool {
        matches!(self.protocol, Protocol::Tcp | Protocol::Udp | Protocol::Udplite)
    }
}

/// Identifies a namespace by its cookie, if it is known, because not every hook sees the inode
/// as well.
fn netns(cookie: Option<u64>, inode: Option<u32>) -> (Option<u64>, Option<u32>) {
    (cookie, inode.filter(|_| cookie.is_none()))
}
