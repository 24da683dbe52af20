//! Counts failed calls that never reached a socket: a seccomp filter or a tracer answered them
//! with EADDRINUSE.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf,
    maps::{Map, MapData, PerCpuArray},
};

/// The kernel side's count (tracepoint set; no other hook sees such calls).
pub struct NotAttempted(PerCpuArray<MapData, u64>);

impl NotAttempted {
    /// Opens a second handle of the loaded object's map; `None` if that fails.
    pub fn of(ebpf: &Ebpf) -> Option<Self> {
        let Some(Map::PerCpuArray(map)) = ebpf.map("NOT_ATTEMPTED") else { return None };
        let descriptor = map.fd().as_fd().try_clone_to_owned().ok()?;
        let map = MapData::from_fd(descriptor).ok()?;
        Map::PerCpuArray(map).try_into().ok().map(Self)
    }

    /// Returns the count so far; `None` if it cannot be read.
    pub fn count(&self) -> Option<u64> {
        self.0.get(&0, 0).ok().map(|processors| processors.iter().sum())
    }
}
