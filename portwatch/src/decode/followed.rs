//! Actions of processes after a failed bind, as the kernel side sends them.

use std::net::IpAddr;

use portwatch_common::{Followed, Tenant, followed, followed_flag};

use super::{DecodeError, address_of, name_of, nonzero, protocol_of, stage_of};
use crate::evidence::{Protocol, Stage};

/// A process that is followed: its pid, and the time of its first failed bind, which
/// distinguishes it from later processes with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watch {
    /// The process.
    pub pid: u32,
    /// The time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub since_ns: u64,
}

/// An action of a followed process, or a bind of another process at an awaited port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFollowed {
    /// Time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The process.
    pub pid: u32,
    /// Its parent, if it has bound something and the parent is known.
    pub parent: Option<u32>,
    /// The thread's name.
    pub comm: String,
    /// The cgroup2 id.
    pub cgroup_id: u64,
    /// The tenant to whose share it counts.
    pub tenant: Tenant,
    /// The process itself, if one of its binds has failed.
    pub own: Option<Watch>,
    /// The failing process from which it descends.
    pub root: Option<Watch>,
    /// The action.
    pub did: Did,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// It bound a socket, or listens on it.
    Bind(Bound),
    /// It started a process.
    Fork {
        /// The pid of that process.
        child: u32,
        /// Whether that process is followed too.
        followed: bool,
    },
    /// It exited.
    Exit {
        /// The exit code, as wait(2) returns it.
        code: u32,
        /// Whether it had started processes that are not followed.
        more: bool,
    },
}

/// A successful bind or listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The call.
    pub stage: Stage,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address.
    pub address: IpAddr,
    /// The requested port; 0 requests any.
    pub port: u16,
    /// The namespace's inode.
    pub netns_inode: Option<u32>,
    /// The namespace's cookie.
    pub netns_cookie: Option<u64>,
}

/// Decodes one such record.
///
/// # Errors
/// The bytes have another size than [`Followed`], or contain a value that the kernel side never
/// writes.
pub(super) fn decode(bytes: &[u8]) -> Result<RawFollowed, DecodeError> {
    let record: Followed = bytemuck::try_pod_read_unaligned(bytes)
        .map_err(|_| DecodeError::Size { got: bytes.len() })?;
    let did = match record.kind {
        followed::BOUND => {
            let (_, address) = address_of(record.family, record.address)?;
            Did::Bind(Bound {
                stage: stage_of(record.stage)?,
                protocol: protocol_of(record.protocol),
                address,
                port: record.port,
                netns_inode: nonzero(record.netns_inode),
                netns_cookie: nonzero(record.netns_cookie),
            })
        }
        followed::FORKED => Did::Fork { child: record.value, followed: true },
        followed::EXITED => {
            let more = record.flags & followed_flag::MORE_FORKS != 0;
            Did::Exit { code: record.value, more }
        }
        other => return Err(DecodeError::Act(other)),
    };
    Ok(RawFollowed {
        at_ns: record.at_ns,
        pid: record.pid,
        parent: nonzero(record.parent),
        comm: name_of(&record.comm),
        cgroup_id: record.cgroup_id,
        tenant: record.tenant,
        own: watch_of(record.pid, record.own_ns),
        root: watch_of(record.root, record.root_ns),
        did,
    })
}

/// Returns the process, or `None` if it is not followed.
pub(super) fn watch_of(pid: u32, since_ns: u64) -> Option<Watch> {
    (since_ns != 0).then_some(Watch { pid, since_ns })
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use portwatch_common::BindFailure;
    use proptest::prelude::*;

    use super::*;
    use crate::decode::{RawRecord, record};

    #[test]
    fn what_a_followed_process_does_is_known_by_its_size() {
        let mut exit = Followed { kind: followed::EXITED, pid: 7, ..Followed::zeroed() };
        (exit.own_ns, exit.value, exit.flags) = (5, 0x100, followed_flag::MORE_FORKS);
        let Ok(RawRecord::Followed(raw)) = record(bytemuck::bytes_of(&exit)) else { panic!() };
        assert_eq!((raw.own, raw.root), (Some(Watch { pid: 7, since_ns: 5 }), None));
        assert_eq!(raw.did, Did::Exit { code: 0x100, more: true });
        exit.kind = 9;
        assert_eq!(record(bytemuck::bytes_of(&exit)), Err(DecodeError::Act(9)));
        let mut failure = BindFailure::zeroed();
        (failure.attempt.stage, failure.attempt.family) = (1, 2);
        let failure = record(bytemuck::bytes_of(&failure));
        assert!(matches!(failure, Ok(RawRecord::Failure(_))));
    }

    proptest! {
        #[test]
        fn any_followed_process_too(
            bytes in proptest::collection::vec(any::<u8>(), size_of::<Followed>()),
            kind in 0u8..5,
        ) {
            let mut one: Followed = bytemuck::pod_read_unaligned(&bytes);
            one.kind = kind;
            let _ = record(bytemuck::bytes_of(&one));
        }
    }
}
