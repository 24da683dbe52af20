//! What this kernel and these rights allow, probed once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::Btf;
use portwatch_common::{Layout, helper};
use procfs::process::Process;

use super::{KernelError, attach, btf::Types, layout, records::Shared};

/// Where the kernel exports its type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The capabilities (include/uapi/linux/capability.h) that attaching needs.
/// CAP_SYS_ADMIN stands in for each of them.
const NEEDED: [(u8, &str); 3] = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (12, "CAP_NET_ADMIN")];
const CAP_SYS_ADMIN: u8 = 21;
/// The capabilities that looking at other users' processes needs.
const WANTED: [(u8, &str); 2] = [(19, "CAP_SYS_PTRACE"), (2, "CAP_DAC_READ_SEARCH")];

/// The result of probing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// `uname -r`.
    pub release: String,
    /// Capabilities without which nothing can be attached.
    pub missing: Vec<&'static str>,
    /// Capabilities without which other users' holders stay unnamed.
    pub unnamed_without: Vec<&'static str>,
    /// The kernel's lockdown mode, where it can be read.
    pub lockdown: Option<String>,
    /// The mount point of the cgroup2 hierarchy.
    pub cgroup2: Option<PathBuf>,
    /// Whether function exits can be hooked, or the kernel's answer.
    pub fexit: Result<(), String>,
}

/// The kernel's type information, read once and needed only while loading.
pub struct KernelTypes {
    /// For the loader.
    pub btf: Btf,
    /// For the programs.
    pub(super) layout: Shared<Layout>,
}

impl KernelTypes {
    /// Reads the type information at `path` (see [`VMLINUX`]).
    ///
    /// # Errors
    /// It is not there, or lacks a type that is needed.
    pub fn read(path: &Path) -> Result<Self, KernelError> {
        let bytes = fs::read(path)
            .map_err(|source| KernelError::NoBtf { path: path.display().to_string(), source })?;
        let layout = Shared(layout::resolve(&Types::parse(&bytes)?)?);
        let btf = Btf::parse(&bytes, aya::Endianness::default())
            .map_err(|error| KernelError::aya("parse the kernel's BTF")(error.into()))?;
        Ok(Self { btf, layout })
    }

    /// Whether programs of this kernel see the parents of a task
    /// (`bpf_get_current_task_btf`, 5.11).
    pub fn tell_parents(&self) -> bool {
        self.layout.0.helpers & helper::CURRENT_TASK_BTF != 0
    }
}

impl Features {
    /// Probes everything. Attaches one function exit for a moment to learn
    /// whether that is permitted: versions and configurations do not tell.
    pub fn probe(types: &KernelTypes) -> Self {
        let effective = effective_capabilities();
        let missing = lacking(effective, &NEEDED);
        let fexit = if missing.is_empty() {
            attach::probe_fexit(types)
        } else {
            Err(format!("needs {}", missing.join(", ")))
        };
        Self {
            release: release(),
            missing,
            unnamed_without: lacking(effective, &WANTED),
            lockdown: lockdown(),
            cgroup2: cgroup2(),
            fexit,
        }
    }
}

/// The capabilities that attaching needs and the process lacks.
pub fn missing_capabilities() -> Vec<&'static str> {
    lacking(effective_capabilities(), &NEEDED)
}

/// `uname -r`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn lacking(effective: u64, wanted: &[(u8, &'static str)]) -> Vec<&'static str> {
    let has = |bit: u8| effective & (1 << bit) != 0;
    wanted
        .iter()
        .filter(|(bit, _)| !has(*bit) && !has(CAP_SYS_ADMIN))
        .map(|(_, name)| *name)
        .collect()
}

/// Zero where it cannot be read, which reads as "lacks everything".
fn effective_capabilities() -> u64 {
    Process::myself().and_then(|me| me.status()).map_or(0, |status| status.capeff)
}

/// The word in brackets in `/sys/kernel/security/lockdown`.
fn lockdown() -> Option<String> {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// The first cgroup2 mount whose root is the hierarchy's root.
fn cgroup2() -> Option<PathBuf> {
    let mounts = Process::myself().and_then(|me| me.mountinfo()).ok()?;
    mounts
        .0
        .into_iter()
        .find(|mount| mount.fs_type == "cgroup2" && mount.root == "/")
        .map(|mount| mount.mount_point)
}
