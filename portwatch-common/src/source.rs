//! A process that is refused too often: its refusals are counted, not sent.

use bytemuck::{Pod, Zeroable};

use crate::Attempt;

/// Whose refusals are counted, not told one by one, when there are too many: a
/// process at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Source {
    /// As in [`Attempt`].
    pub netns_cookie: u64,
    /// As in [`Attempt`].
    pub address: [u8; 16],
    /// As in [`Attempt`].
    pub netns_inode: u32,
    /// The process.
    pub pid: u32,
    /// As in [`Attempt`].
    pub port: u16,
    /// As in [`Attempt`].
    pub family: u16,
    /// As in [`Attempt`].
    pub protocol: u16,
    /// As in [`Attempt`].
    pub stage: u8,
    /// Zero.
    pub reserved: u8,
}

impl Source {
    /// Whose an attempt by the process `pid` is.
    #[inline(always)]
    pub fn of(attempt: &Attempt, pid: u32) -> Self {
        Self {
            netns_cookie: attempt.netns_cookie,
            address: attempt.address,
            netns_inode: attempt.netns_inode,
            pid,
            port: attempt.port,
            family: attempt.family,
            protocol: attempt.protocol,
            stage: attempt.stage,
            reserved: 0,
        }
    }
}

/// What a [`Source`] has done on one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SourceUse {
    /// When its present second began, in nanoseconds of `CLOCK_BOOTTIME`.
    pub second_ns: u64,
    /// Records sent in that second.
    pub sent: u64,
    /// Refusals that were only counted, since the beginning.
    pub counted: u64,
    /// When the last of them was.
    pub last_ns: u64,
}

/// Sources that are told apart, at most; the refusals of more are all sent.
pub const SOURCES: u32 = 8192;
/// Records that a source may send in a second from one processor.
pub const SENT_A_SECOND: u64 = 32;

const _: () = assert!(size_of::<Source>() == 40);
const _: () = assert!(size_of::<SourceUse>() == 32);
