//! Removes something from the program before it starts: capabilities, or a part of the kernel.
//! Mounts change only in a mount namespace of its own.

use std::{
    ffi::CString,
    io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    process::Command,
};

use portwatch_tests::cgroup;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::{CapabilitySet, UnshareFlags, remove_capability_from_bounding_set, unshare_unsafe},
};

/// With nothing in /sys/kernel/btf.
pub fn without_btf(command: &mut Command) -> &mut Command {
    in_own_mounts(command, || {
        let flags = MountFlags::RDONLY;
        Ok(mount(c"none", c"/sys/kernel/btf", c"tmpfs", flags, None)?)
    })
}

/// Without a cgroup2 mount.
pub fn without_cgroup2(command: &mut Command) -> &mut Command {
    let mount_point = CString::new(cgroup::mount_point().as_os_str().as_bytes()).unwrap();
    in_own_mounts(command, move || Ok(unmount(mount_point.as_c_str(), UnmountFlags::DETACH)?))
}

/// With a /proc that shows its own processes only, and without the capability to see others.
pub fn with_hidden_processes(command: &mut Command) -> &mut Command {
    in_own_mounts(command, || {
        mount(c"proc", c"/proc", c"proc", MountFlags::empty(), Some(c"hidepid=invisible"))?;
        Ok(remove_capability_from_bounding_set(CapabilitySet::SYS_PTRACE)?)
    })
}

fn in_own_mounts(
    command: &mut Command,
    change: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> &mut Command {
    // SAFETY: a few system calls, which are safe between fork and exec; no memory is
    // allocated, and the sharing of descriptors does not change.
    unsafe {
        command.pre_exec(move || {
            unshare_unsafe(UnshareFlags::NEWNS)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change(c"/", private)?;
            change()
        })
    }
}

/// With a kernel without bpf(2): a filter answers ENOSYS.
pub fn without_bpf(command: &mut Command) -> &mut Command {
    // SAFETY: two system calls, which are safe between fork and exec.
    unsafe { command.pre_exec(refuse_bpf) }
}

fn refuse_bpf() -> io::Result<()> {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let bpf = libc::SYS_bpf.cast_unsigned() as u32;
    // The system call's number is the first field of `seccomp_data`.
    let mut filter = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, bpf),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid for the call, which copies it.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
