//! From the running kernel to a stream of records: probe once ([`features`]), decide
//! ([`plan`]), attach ([`attach`]), read ([`ring`]). [`records`] and [`files`] find the
//! holders of a failed bind's port. [`listens`] is separate: a hook for `portwatch wait`.

pub mod attach;
pub mod btf;
pub mod features;
pub mod files;
pub mod layout;
pub mod limits;
pub mod listens;
pub mod not_attempted;
pub mod nsfs;
pub mod plan;
pub mod records;
pub mod rights;
pub mod ring;
pub mod skips;

use crate::advice::{Advised, FAILED, NOT_PERMITTED};

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
        /// The error of opening it.
        source: std::io::Error,
    },
    /// The kernel's type information could not be used.
    #[error("the kernel's type information (BTF) cannot be used")]
    Btf(#[from] btf::BtfError),
    /// Neither hook set can be used.
    #[error("the kernel permits neither hook set: fexit ({fexit}); tracepoint ({tracepoint})")]
    NoHooks {
        /// Why function exits cannot be hooked.
        fexit: Unusable,
        /// Why the tracepoint set cannot be used.
        tracepoint: Unusable,
    },
    /// The requested hook set cannot be used.
    #[error("the {set} hooks are not available: {why}")]
    NotThisSet {
        /// The set's name.
        set: &'static str,
        /// The reason.
        why: Unusable,
    },
    /// The kernel rejected the object or one of its programs.
    #[error("failed to {step}")]
    Aya {
        /// The step that failed.
        step: String,
        /// The error of the loader or the verifier.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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
                 and mount /sys"
            }
            Self::Btf(_) => "use Linux 5.10 or later; portwatch doctor shows what was found",
            Self::NoHooks { .. } => {
                "mount a cgroup2 hierarchy (mount -t cgroup2 none /sys/fs/cgroup), or use a kernel \
                 that permits fexit programs; portwatch doctor shows what was found"
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
    /// Wraps the loader's error at `step`.
    pub(crate) fn aya(
        step: impl Into<String>,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        let step = step.into();
        |source| Self::Aya { step, source }
    }
}
