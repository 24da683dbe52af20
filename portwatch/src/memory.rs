//! How much memory the agent keeps: what it uses, and not what it has used.

/// Gives back what the allocator would keep for good (malloc_trim(3)): reading the
/// kernel's types takes some 20 MiB for a moment, full queues a few.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only looks at the allocator's own free memory, under its locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// For a process that stays: the kernel would fill the holes in the heap with huge pages,
/// and the allocator would give each thread that has to wait for another a heap of its
/// own (`M_ARENA_MAX`, mallopt(3)). What the process starts would inherit the first.
pub fn stay_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a number of the allocator's, which it reads when it would make a heap.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages could not be switched off");
    }
}
