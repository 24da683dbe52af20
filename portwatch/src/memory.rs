//! Limits how much memory the agent keeps: what it uses, not what it used once.

/// Returns unused memory that the allocator would keep (malloc_trim(3)): reading the kernel's
/// types takes some 20 MiB for a moment, full queues a few.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only accesses the allocator's own free memory, under its locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Configures memory for a long-running process: the kernel would fill gaps in the heap with
/// huge pages, and the allocator would give each thread that waits for another a heap of its
/// own (`M_ARENA_MAX`, mallopt(3)). Child processes would inherit the first setting.
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
