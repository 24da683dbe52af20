//! Calls that a seccomp filter answers instead of the kernel.

use std::io;

/// From here on bind(2) and listen(2) of this process return this error, or success for
/// 0, and do nothing (seccomp(2), SECCOMP_RET_ERRNO).
pub fn answers(errno: u16) -> io::Result<()> {
    /// BPF_LD, BPF_W and BPF_ABS: `nr` is the first field of `struct seccomp_data`.
    const LOAD: u16 = 0x20;
    /// BPF_JMP, BPF_JEQ and BPF_K.
    const IF_EQUAL: u16 = 0x15;
    /// BPF_RET and BPF_K.
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(IF_EQUAL, 2, 0, number(libc::SYS_bind)),
        step(IF_EQUAL, 1, 0, number(libc::SYS_listen)),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | u32::from(errno)),
    ];
    let filter = libc::sock_fprog { len: 5, filter: steps.as_mut_ptr() };
    // SAFETY: two system calls; the filter is there for the length of the second.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
