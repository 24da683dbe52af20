//! The reading end of the ring buffer, and the counts of records that did not fit.

use std::io;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use portwatch_common::loss;
use tokio::io::unix::AsyncFd;

use super::{KernelError, take_map, take_ring};

/// The records that the kernel side writes.
pub struct Ring {
    records: AsyncFd<RingBuf<MapData>>,
    losses: PerCpuArray<MapData, u64>,
    seen: [u64; loss::PLACES as usize],
}

/// The stages at which the kernel side loses records, in the order of [`loss`].
const PLACES: [&str; loss::PLACES as usize] =
    ["ring", "attempt_missing", "attempt_unrecorded", "return_skipped"];

impl Ring {
    /// Takes the maps out of the loaded object. Needs a tokio runtime.
    ///
    /// # Errors
    /// The object lacks the maps, or the ring cannot be polled.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let (records, losses) = (take_ring(ebpf)?, take_map(ebpf, "LOSSES")?);
        Ok(Self { records, losses, seen: [0; loss::PLACES as usize] })
    }

    /// Waits for records.
    ///
    /// # Errors
    /// The descriptor cannot be polled.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.records.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Passes every available record to `take`.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        while let Some(record) = self.records.get_mut().next() {
            take(&record);
        }
    }

    /// Returns the losses by stage since the last call, without zeros.
    pub fn new_losses(&mut self) -> Vec<(&'static str, u64)> {
        let mut new = Vec::new();
        for ((index, place), seen) in (0..).zip(PLACES).zip(&mut self.seen) {
            let Ok(counts) = self.losses.get(&index, 0) else { continue };
            let total: u64 = counts.iter().sum();
            let count = total.saturating_sub(*seen);
            if count > 0 {
                *seen = total;
                new.push((place, count));
            }
        }
        new
    }
}
