//! Probes once what this kernel and these permissions allow.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aya::Btf;
use portwatch_common::{ABSENT, Layout, helper};
use rustix::thread::{self, CapabilitySet};
use serde::Serialize;
use strum::VariantArray as _;

use super::{
    KernelError, Unusable, attach, btf::Types, layout, plan::Choice, records::Shared, sets::HookSet,
};
use crate::proc;

/// Where the kernel exports its type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The most that is read of it. Kernels of 2026 have 5 to 8 MiB.
const MAX_BTF: u64 = 64 << 20;

/// Capabilities of which one is enough, the name of the one to request, and what is missing
/// without it.
type Right = (CapabilitySet, &'static str, &'static str);

/// The capabilities for attaching. CAP_SYS_ADMIN includes each of them (`bpf_capable`,
/// include/linux/capability.h).
const NEEDED: [Right; 3] = [
    (CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN), "CAP_BPF", ATTACHING),
    (CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN), "CAP_PERFMON", ATTACHING),
    (CapabilitySet::NET_ADMIN.union(CapabilitySet::SYS_ADMIN), "CAP_NET_ADMIN", ATTACHING),
];
const ATTACHING: &str = "no hooks can be attached";
/// The capabilities for reading other users' processes. No other capability includes them.
const WANTED: [Right; 2] = [
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE", "processes of other users cannot be named"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH", FOUND_LATE),
];
const FOUND_LATE: &str = "holders of other users are found late or not at all";
const ADMIN: Right =
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", "other network namespaces cannot be entered");

/// Helpers that the programs at `cgroup/bind4|6` can do without.
const BOTH: u32 = helper::BIND_OPTIONS | helper::TASK_REGS;

/// A capability that matters, and whether it is effective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// Whether it is effective. CAP_SYS_ADMIN counts for those that are needed for attaching.
    pub has: bool,
    /// What is missing without it.
    pub without: &'static str,
}

/// The result of probing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// `uname -r`.
    pub release: String,
    /// Capabilities without which nothing can be attached.
    pub missing: Vec<&'static str>,
    /// Capabilities without which other users' holders cannot be named.
    pub unnamed_without: Vec<&'static str>,
    /// The kernel's lockdown mode, if it can be read.
    pub lockdown: Option<String>,
    /// The mount point of the cgroup2 hierarchy.
    pub cgroup2: Option<PathBuf>,
    /// The hook sets that were tried and that the kernel rejected, and why. Sets that were not
    /// tried are not in it.
    pub refused: Vec<(HookSet, Unusable)>,
    /// Whether programs on function exits can generate a socket's cookie
    /// (`bpf_get_socket_cookie` there, 5.12).
    pub cookies: bool,
    /// Whether a task can be preempted in a program at the end of a function or system call.
    pub preempts: bool,
}

/// The kernel's type information, read once and needed only while loading.
pub struct KernelTypes {
    /// For the loader.
    pub btf: Btf,
    /// For the programs.
    pub(super) layout: Shared<Layout>,
    /// As in [`Features`].
    pub(super) preempts: bool,
}

impl KernelTypes {
    /// Reads the type information at `path` (see [`VMLINUX`]).
    ///
    /// # Errors
    /// It does not exist, lacks a required type, or is that of another kernel: programs would be
    /// attached to other functions and read other fields.
    pub fn read(path: &Path) -> Result<Self, KernelError> {
        let named = || path.display().to_string();
        let bytes = read_at_most(path, MAX_BTF)
            .map_err(|source| KernelError::NoBtf { path: named(), source })?;
        let own = Path::new(VMLINUX);
        if path != own && read_at_most(own, MAX_BTF).is_ok_and(|own| own != bytes) {
            return Err(KernelError::ForeignBtf { path: named() });
        }
        let types = Types::parse(&bytes)?;
        let mut layout = layout::resolve(&types)?;
        // This was added together with programs at the end of system calls that may fault and
        // be preempted (kernel/trace/bpf_trace.c, 7.2).
        let preempts = types.has_function("trace_call_bpf_faultable");
        // This is assumed until it has been probed.
        layout.helpers |= helper::BIND_OPTIONS;
        // The loader replaces both helpers, or neither.
        if aya::features().bpf_probe_read_kernel() {
            layout.helpers |= helper::READ_USER;
        }
        let layout = Shared(layout);
        let btf = Btf::parse(&bytes, aya::Endianness::default())
            .map_err(|error| KernelError::at("parse the kernel's BTF", error))?;
        Ok(Self { btf, layout, preempts })
    }

    /// Returns what events lack with any hook set, because the kernel hides it from programs.
    pub fn hidden(&self) -> Option<&'static str> {
        let reads_user = self.layout.0.helpers & helper::READ_USER != 0;
        (!reads_user)
            .then_some("arguments of processes that exit at once: the kernel is locked down")
    }

    /// Returns whether a function's arguments or result cannot be read from the registers.
    pub(super) fn lack_registers(&self) -> bool {
        let layout = &self.layout.0;
        [layout.regs_first, layout.regs_second, layout.regs_third, layout.regs_result]
            .contains(&ABSENT)
    }

    /// Returns whether programs of this kernel can read the parents of a task
    /// (`bpf_get_current_task_btf`, 5.11).
    pub fn tell_parents(&self) -> bool {
        self.layout.0.helpers & helper::CURRENT_TASK_BTF != 0
    }
}

impl Features {
    /// Probes everything. Attaches one function exit and one kprobe for a moment, because only this
    /// shows whether it is permitted: versions and configurations do not. Removes from `types` the
    /// helpers that the programs may not call.
    ///
    /// With a choice, only hook sets are tried that matter for it.
    pub fn probe(types: &mut KernelTypes, choice: Option<Choice>) -> Self {
        let effective = effective_capabilities();
        let missing = lacking(effective, &NEEDED);
        let refused = if missing.is_empty() {
            let attach::Probed { refused, mut bind } = attach::probe(types, choice);
            // The permitted calls were added in different versions, and were backported to
            // older kernels.
            let helpers = types.layout.0.helpers;
            for without in [helper::BIND_OPTIONS, helper::TASK_REGS, BOTH] {
                if !bind && helpers & without == without {
                    types.layout.0.helpers = helpers & !without;
                    bind = attach::probe_bind(types);
                }
            }
            refused
        } else {
            let why = Unusable::NotPermitted { missing: missing.clone() };
            HookSet::VARIANTS.iter().map(|&set| (set, why.clone())).collect()
        };
        Self {
            release: release(),
            missing,
            unnamed_without: lacking(effective, &WANTED),
            lockdown: lockdown(),
            cgroup2: cgroup2(),
            refused,
            cookies: types.layout.0.helpers & helper::TRACING_SOCKET_COOKIE != 0,
            preempts: types.preempts,
        }
    }
}

fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // Opening a FIFO would wait for a writer.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Returns the capabilities that attaching needs and that the process does not have.
pub fn missing_capabilities() -> Vec<&'static str> {
    lacking(effective_capabilities(), &NEEDED)
}

/// Returns the capabilities that matter.
pub fn capabilities() -> Vec<Capability> {
    let effective = effective_capabilities();
    let all = NEEDED.into_iter().chain(WANTED).chain([ADMIN]);
    all.map(|(any_of, name, without)| {
        let has = effective.intersects(any_of);
        Capability { name, has, without }
    })
    .collect()
}

/// Returns `uname -r`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn lacking(effective: CapabilitySet, rights: &[Right]) -> Vec<&'static str> {
    let lacked = rights.iter().filter(|(any_of, ..)| !effective.intersects(*any_of));
    lacked.map(|&(_, name, _)| name).collect()
}

/// Returns the effective capabilities of this thread, or none if the kernel does not report
/// them.
fn effective_capabilities() -> CapabilitySet {
    thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// Returns the word in brackets in `/sys/kernel/security/lockdown`.
fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Returns the mount point of the whole cgroup2 hierarchy. A container's own mount also has `/`
/// as its root, but contains only the part below the container's group.
pub fn cgroup2() -> Option<PathBuf> {
    /// The inode of the hierarchy's root: the first that kernfs assigns (`kernfs_create_root`,
    /// fs/kernfs/dir.c).
    const ROOT: u64 = 1;
    let mounts = proc::mounts(&fs::read("/proc/self/mountinfo").ok()?);
    let mut points = mounts.into_iter().filter(|mount| mount.kind == "cgroup2");
    points.find_map(|mount| {
        let found = fs::metadata(&mount.point).ok()?;
        (found.ino() == ROOT).then_some(mount.point)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_loads_programs_and_names_nobody() {
        let admin = CapabilitySet::SYS_ADMIN;
        assert!(lacking(admin, &NEEDED).is_empty());
        assert_eq!(lacking(admin, &WANTED), ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
        let some = CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert_eq!(lacking(some, &NEEDED), ["CAP_NET_ADMIN"]);
    }
}
