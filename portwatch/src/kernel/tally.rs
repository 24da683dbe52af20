//! Reads numbers that the kernel side only counts.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray},
};

/// Failed calls that never reached a socket: a seccomp filter or a tracer returned EADDRINUSE
/// for them (tracepoint set; no other hook sees such calls).
pub const NOT_ATTEMPTED: &str = "NOT_ATTEMPTED";
/// Failed binds on ports that are [not wanted](super::ports).
pub const IGNORED: &str = "IGNORED";

/// Records of followed processes that could not be sent.
pub const UNFOLLOWED: &str = "UNFOLLOWED";

/// One such number.
pub struct Tally(PerCpuArray<MapData, u64>);

impl Tally {
    /// Opens a second handle of the loaded object's map; `None` if that fails.
    pub fn of(ebpf: &Ebpf, name: &str) -> Option<Self> {
        let Some(Map::PerCpuArray(map)) = ebpf.map(name) else { return None };
        let descriptor = map.fd().as_fd().try_clone_to_owned().ok()?;
        let map = MapData::from_fd(descriptor).ok()?;
        Map::PerCpuArray(map).try_into().ok().map(Self)
    }

    /// Returns the count so far, or `None` if it cannot be read.
    pub fn count(&self) -> Option<u64> {
        self.0.get(&0, 0).ok().map(|processors| processors.iter().sum())
    }
}
