//! The capabilities that are given away once everything is attached: what is left is
//! what looking at other users' processes and namespaces takes.

use std::{fs, io, thread, time::Duration};

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, Pid, capabilities, clear_ambient_capability_set, gettid,
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
    #[error("{0} other threads would keep them")]
    Threads(usize),
    /// /proc cannot be read.
    #[error("cannot count the threads")]
    Uncounted(#[source] io::Error),
    /// capset(2) or prctl(2) fails.
    #[error("the kernel does not permit it")]
    Refused(#[from] Errno),
}

/// Gives away all capabilities but those that are kept, for this thread and those that
/// it starts, for good.
///
/// # Errors
/// Another thread has more and would keep them, or the kernel refuses it.
pub fn give_away() -> Result<(), RightsError> {
    nobody_has_more()?;
    Ok(give_away_of_thread()?)
}

/// The same for this thread alone, which was started before the process gives its own away.
///
/// # Errors
/// The kernel refuses it.
pub fn give_away_of_thread() -> Result<(), Errno> {
    // Where this thread may not, the sets below keep the others from coming back.
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    let mut sets = capabilities(None)?;
    sets.permitted &= KEPT;
    sets.effective &= KEPT;
    sets.inheritable = CapabilitySet::empty();
    clear_ambient_capability_set()?;
    set_capabilities(None, sets)
}

/// A thread that was waited for is listed for a moment longer, and one that has just been
/// started takes a moment to give its own away.
fn nobody_has_more() -> Result<(), RightsError> {
    const MOMENTS: u32 = 200;
    let mut others = 0;
    for _ in 0..MOMENTS {
        others = threads_with_more().map_err(RightsError::Uncounted)?;
        if others == 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Err(RightsError::Threads(others))
}

/// How many other threads have a capability that is not kept. One that has ended since it
/// was listed counts as well, and is not listed the next time.
fn threads_with_more() -> io::Result<usize> {
    let mut others = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let number = thread?.file_name();
        let thread = number.to_str().and_then(|number| Pid::from_raw(number.parse().ok()?));
        if thread != Some(gettid()) {
            let has_no_more = |sets: CapabilitySets| KEPT.contains(sets.effective);
            others += usize::from(!capabilities(thread).is_ok_and(has_no_more));
        }
    }
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test runs on a thread of its own, beside the one that waits for it.
    #[test]
    fn nothing_is_given_away_where_others_would_keep_it() {
        let before = capabilities(None).unwrap();
        if KEPT.contains(before.effective) {
            return;
        }
        assert!(matches!(give_away(), Err(RightsError::Threads(1..))));
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
