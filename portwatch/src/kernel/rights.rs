//! Drops capabilities after everything is attached. The remaining ones are needed to read other
//! users' processes and namespaces.

use std::{fs, io, thread, time::Duration};

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, Pid, capabilities, clear_ambient_capability_set, gettid,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

/// The capabilities that remain, if the process had them. docs/architecture.md says what each
/// is for.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::BPF);

/// Why the capabilities were not dropped.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// Each thread has its own capabilities, and no thread can drop another's.
    #[error("{0} other threads would keep them")]
    Threads(usize),
    /// /proc cannot be read.
    #[error("cannot count the threads")]
    Uncounted(#[source] io::Error),
    /// capset(2) or prctl(2) fails.
    #[error("the kernel does not permit it")]
    Refused(#[from] Errno),
}

/// Drops all capabilities except those in `KEPT`, for this thread and the threads that it
/// starts, permanently.
///
/// # Errors
/// Another thread has more capabilities and would keep them, or the kernel rejects the request.
pub fn give_away() -> Result<(), RightsError> {
    nobody_has_more()?;
    Ok(give_away_of_thread()?)
}

/// Does the same for this thread only, which was started before the process dropped its
/// capabilities.
///
/// # Errors
/// The kernel rejects the request.
pub fn give_away_of_thread() -> Result<(), Errno> {
    // If this thread may not remove them from its bounding set, the sets below prevent it from
    // regaining them.
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

/// Checks that no other thread has more. A joined thread is still listed for a moment, and a
/// new thread takes a moment to drop its capabilities.
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

/// Returns how many other threads have a capability that is not kept. A thread that has ended
/// after it was listed counts too, and is not listed the next time.
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

    /// The test runs on its own thread, while the main thread waits for it.
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
