//! Stops a thread of another process for a while, so that a test knows what it has not
//! processed yet.

use std::{fs, path::Path};

/// A thread under ptrace(2), which continues when this is dropped.
pub struct Stopped(libc::pid_t);

impl Stopped {
    /// The one of this name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn thread(pid: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let called = |path: &Path| fs::read_to_string(path.join("comm")).unwrap().trim() == name;
        let task = tasks.map(|task| task.unwrap().path()).find(|path| called(path)).unwrap();
        let tid: libc::pid_t = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        let mut status = 0;
        // SAFETY: ptrace(2) and waitpid(2) on another process, which access no memory of this
        // one but `status`.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, tid, none, none), 0);
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none), 0);
            assert_eq!(libc::waitpid(tid, &raw mut status, libc::__WALL), tid);
        }
        Self(tid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above. It fails only if the thread has ended.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}
