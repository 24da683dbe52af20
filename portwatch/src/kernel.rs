//! Turns the running kernel into a stream of records: probe once ([`features`]), decide
//! ([`plan`]), attach ([`attach`]), read ([`ring`]). [`records`] and [`files`] find the holders
//! of a failed bind's port. [`listens`] is separate: a hook for `portwatch wait`.

pub mod attach;
pub mod btf;
pub mod features;
pub mod files;
pub mod follow;
pub mod layout;
pub mod limits;
pub mod listens;
pub mod nsfs;
pub mod plan;
pub mod ports;
pub mod records;
pub mod rights;
pub mod ring;
pub mod sets;
pub mod skips;
pub mod tally;

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, RingBuf},
};
use tokio::io::unix::AsyncFd;

use crate::advice::{Advised, FAILED, NOT_PERMITTED};
use sets::HookSet;

/// Why a hook set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It was not tried, because capabilities are missing.
    #[error("needs {}", .missing.join(", "))]
    NotPermitted {
        /// The names of the capabilities.
        missing: Vec<&'static str>,
    },
    /// The kernel rejects one of its programs.
    #[error("{answer}")]
    Refused {
        /// The kernel's error, and the end of its verifier's log.
        answer: String,
    },
    /// There is no cgroup2 hierarchy to attach programs to.
    #[error("no cgroup2 hierarchy is mounted")]
    NoCgroup2,
}

/// Why no hooks could be attached.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process lacks capabilities.
    #[error("watching binds needs {}", .missing.join(", "))]
    NotPermitted {
        /// The names of the capabilities that are not effective.
        missing: Vec<&'static str>,
    },
    /// The kernel's type information does not exist.
    #[error("the kernel has no type information (BTF) at {path}")]
    NoBtf {
        /// The path.
        path: String,
        /// The error of the open.
        source: std::io::Error,
    },
    /// A file has the type information of another kernel.
    #[error("{path} is not the type information (BTF) of this kernel")]
    ForeignBtf {
        /// The path.
        path: String,
    },
    /// The kernel's type information could not be used.
    #[error("the kernel's type information (BTF) cannot be used")]
    Btf(#[from] btf::BtfError),
    /// No hook set can be used. Each is listed with its reason.
    #[error("the kernel permits no hook set: {}", reasons(.0))]
    NoHooks(Vec<(HookSet, Unusable)>),
    /// The requested hook set cannot be used.
    #[error("the {set} hooks are not available: {why}")]
    NotThisSet {
        /// The hook set.
        set: HookSet,
        /// The reason.
        why: Unusable,
    },
    /// The kernel rejected the object or one of its programs.
    #[error("failed to {step}")]
    Aya {
        /// The step that failed.
        step: String,
        /// The error of the loader or the verifier.
        source: Answer,
    },
}

/// An error of the kernel or the loader.
type Answer = Box<dyn std::error::Error + Send + Sync>;

/// Returns a text like `fexit (…); tracepoint (…)`.
fn reasons(refused: &[(HookSet, Unusable)]) -> String {
    let each: Vec<_> = refused.iter().map(|(set, why)| format!("{set} ({why})")).collect();
    each.join("; ")
}

impl Advised for KernelError {
    fn hint(&self) -> &'static str {
        match self {
            Self::NotPermitted { .. } => {
                "run it as root, or grant CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and, to name other \
                 users' processes, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
            }
            Self::NoBtf { .. } => {
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as all distributions have since 2021, \
                 and mount /sys, or name a copy of the file by --btf"
            }
            Self::ForeignBtf { .. } => {
                "leave out --btf and PORTWATCH_BTF: /sys/kernel/btf/vmlinux can be read here"
            }
            Self::Btf(_) => "use Linux 5.10 or later; portwatch doctor shows what was found",
            Self::NoHooks(_) => {
                "mount a cgroup2 hierarchy (mount -t cgroup2 none /sys/fs/cgroup), or use a kernel \
                 that permits fexit programs or kprobes; portwatch doctor shows what was found"
            }
            Self::NotThisSet { .. } => {
                "use --hooks auto; portwatch doctor shows which hooks the kernel permits"
            }
            Self::Aya { .. } => {
                "run portwatch doctor to see what the kernel and the permissions allow"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NotPermitted { .. } => NOT_PERMITTED,
            _ => FAILED,
        }
    }
}

impl KernelError {
    /// Wraps the error that the kernel or the loader returned at `step`.
    fn at(step: impl Into<String>, source: impl Into<Answer>) -> Self {
        Self::Aya { step: step.into(), source: source.into() }
    }
}

/// Takes a map out of the loaded object.
fn take_map<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<M, KernelError> {
    let failed = |why: Answer| KernelError::at(format!("open the map {name}"), why);
    let map = ebpf.take_map(name).ok_or_else(|| failed("the object has no such map".into()))?;
    map.try_into().map_err(|error: MapError| failed(error.into()))
}

/// Takes the ring buffer out of the loaded object. Needs a tokio runtime.
fn take_ring(ebpf: &mut Ebpf) -> Result<AsyncFd<RingBuf<MapData>>, KernelError> {
    let ring = take_map(ebpf, "FAILURES")?;
    // SAFETY: the descriptor belongs to the map. It is open as long as the `RingBuf` lives, and
    // is always the same one.
    unsafe { AsyncFd::register(ring) }
        .map_err(|error| KernelError::at("poll the ring buffer", error))
}
