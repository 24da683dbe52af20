//! The SO_REUSEPORT groups of TCP sockets (net/core/sock_reuseport.c).

use std::collections::BTreeMap;

use crate::{machine::Id, model::Group};

/// The group of each socket, and whether it has stopped listening.
#[derive(Clone, Default)]
pub struct Groups {
    members: BTreeMap<Id, Member>,
    made: u32,
}

#[derive(Clone, Copy)]
struct Member {
    group: u32,
    closed: bool,
}

/// The kernel does not move a socket out of a group that has others (EBUSY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl Groups {
    /// Returns the socket's group as a bind or listen sees it.
    pub fn of(&self, id: Id) -> Group {
        match self.members.get(&id) {
            None => Group::None,
            Some(member) if self.count(member.group, true) > 0 => Group::HasClosed,
            Some(_) => Group::Open,
        }
    }

    /// `reuseport_alloc`: for a listener without a group to join, and for a socket that gets a
    /// program.
    pub fn found(&mut self, id: Id) {
        if self.of(id) != Group::Open {
            self.made += 1;
            self.members.insert(id, Member { group: self.made, closed: false });
        }
    }

    /// `reuseport_add_sock`: for a listener that finds `other`.
    pub fn join(&mut self, id: Id, other: Id) -> Result<(), Busy> {
        if self.of(other) == Group::None {
            self.found(other);
        }
        if let Some(old) = self.members.get(&id)
            && self.count(old.group, true) == 0
            && self.count(old.group, false) != 1
        {
            return Err(Busy);
        }
        if let Some(&Member { group, .. }) = self.members.get(&other) {
            self.members.insert(id, Member { group, closed: false });
        }
        Ok(())
    }

    /// `reuseport_stop_listen_sock`.
    pub fn stop(&mut self, id: Id, migrates: bool) {
        if !migrates {
            self.members.remove(&id);
        } else if let Some(member) = self.members.get_mut(&id) {
            member.closed = true;
        }
    }

    /// `reuseport_detach_sock`.
    pub fn leave(&mut self, id: Id) {
        self.members.remove(&id);
    }

    fn count(&self, group: u32, closed: bool) -> usize {
        self.members
            .values()
            .filter(|member| member.group == group && member.closed == closed)
            .count()
    }
}
