//! The capabilities that are given away once everything is attached: what is left is
//! what looking at other users' processes and namespaces takes.

use std::{fs, io, thread, time::Duration};

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// What stays, where it was there; docs/architecture.md says what each is for.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::BPF);

/// Why they are all still there.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// Each thread has its own, and none can take those of another.
    #[error("{0} threads have been started already, which would keep them")]
    Threads(usize),
    /// /proc cannot be read.
    #[error("the threads cannot be counted")]
    Uncounted(#[source] io::Error),
    /// capset(2) or prctl(2) fails.
    #[error("the kernel refuses it")]
    Refused(#[from] Errno),
}

/// Gives away all capabilities but those that are kept, for this thread and those that
/// it starts, for good.
///
/// # Errors
/// There are other threads, or the kernel refuses it.
pub fn give_away() -> Result<(), RightsError> {
    be_alone()?;
    // Where this thread may not, the sets below keep the others from coming back.
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut sets = capabilities(None)?;
    sets.permitted &= KEPT;
    sets.effective &= KEPT;
    sets.inheritable = CapabilitySet::empty();
    clear_ambient_capability_set()?;
    Ok(set_capabilities(None, sets)?)
}

/// A thread that was waited for is listed for a moment longer.
fn be_alone() -> Result<(), RightsError> {
    const MOMENTS: u32 = 200;
    let mut others = 0;
    for _ in 0..MOMENTS {
        let all = fs::read_dir("/proc/self/task").map_err(RightsError::Uncounted)?.count();
        others = all.saturating_sub(1);
        if others == 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(RightsError::Threads(others))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test runs on a thread of its own, beside the one that waits for it.
    #[test]
    fn nothing_is_given_away_where_others_would_keep_it() {
        let before = capabilities(None).unwrap();
        assert!(matches!(give_away(), Err(RightsError::Threads(1..))));
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
