//! Limits how much memory the agent keeps: what it uses now, not the most that it ever used.

/// Returns unused memory that the allocator would keep (malloc_trim(3)). Reading the kernel's
/// types needs some 20 MiB for a moment, and full queues need a few.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only accesses the allocator's own free memory, under its locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Configures memory for a long-running process. Otherwise the kernel would fill gaps in the
/// heap with huge pages, and the allocator would create a separate heap for each thread that
/// waits for another (`M_ARENA_MAX`, mallopt(3)). Child processes would inherit the first
/// setting.
pub fn stay_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number that the allocator reads when it creates a heap.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages could not be switched off");
    }
}
