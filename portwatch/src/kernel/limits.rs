//! What the kernel side has only counted, because one process was refused too often.

use std::collections::HashMap as Known;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuHashMap},
};
use portwatch_common::{Source, SourceUse};

use super::{KernelError, records::Shared};

/// A source that has done nothing for so long is removed. No program of the kernel
/// side can still have it in hand, and one that comes back begins by sending.
const IDLE_NS: u64 = 3_000_000_000;

/// Refusals of one source that were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whose.
    pub source: Source,
    /// How many since the last time.
    pub count: u64,
    /// When the last of them was, in nanoseconds of `CLOCK_BOOTTIME`.
    pub last_ns: u64,
}

/// The counts of the loaded object.
pub struct Limits {
    sources: PerCpuHashMap<MapData, Shared<Source>, Shared<SourceUse>>,
    seen: Known<Source, u64>,
}

impl Limits {
    /// Takes the map out of the loaded object.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let step = |error: Box<dyn std::error::Error + Send + Sync>| {
            KernelError::aya("open the counts of sources")(error)
        };
        let map = ebpf.take_map("SOURCES").ok_or_else(|| step("no map SOURCES".into()))?;
        let sources = map.try_into().map_err(|error: aya::maps::MapError| step(error.into()))?;
        Ok(Self { sources, seen: Known::new() })
    }

    /// What has been counted since the last call, and whether there is nothing left
    /// that could count more.
    pub fn collect(&mut self, now_ns: u64) -> (Vec<Counted>, bool) {
        let mut new = Vec::new();
        let mut idle = Vec::new();
        let mut sources = 0;
        for entry in self.sources.iter() {
            // One that was removed meanwhile is not there; the rest comes next time.
            let Ok((Shared(source), processors)) = entry else { break };
            sources += 1;
            let counted = processors.iter().map(|Shared(known)| known.counted).sum();
            let last_ns = processors.iter().map(|Shared(known)| known.last_ns).max().unwrap_or(0);
            let active = processors.iter().map(|Shared(known)| known.second_ns).max().unwrap_or(0);
            let before = self.seen.insert(source, counted).unwrap_or(0);
            let count = counted.saturating_sub(before);
            if count > 0 {
                new.push(Counted { source, count, last_ns });
            } else if now_ns.saturating_sub(active.max(last_ns)) > IDLE_NS {
                idle.push(source);
            }
        }
        for source in &idle {
            if let Err(error) = self.sources.remove(&Shared(*source)) {
                tracing::debug!(%error, "an idle source stays");
                continue;
            }
            self.seen.remove(source);
            sources -= 1;
        }
        (new, sources == 0)
    }
}
