//! How an error is told: heading, causes, hint, exit code.

use std::process::ExitCode;

use crate::kernel::KernelError;

/// Prints the error on stderr and gives the exit code for its kind.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("caused by: {}", cause.to_string().trim_end());
    }
    let (code, hint) = classify(error);
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(code)
}

/// Exit code and hint, by kind.
fn classify(error: &anyhow::Error) -> (u8, Option<&'static str>) {
    match error.downcast_ref::<KernelError>() {
        Some(KernelError::NotPermitted { .. }) => (
            4,
            Some(
                "run it as root, or give it CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and, to name \
                  other users' processes, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            ),
        ),
        Some(KernelError::NoBtf { .. }) => (
            1,
            Some(
                "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, as every distribution's \
                  has been since 2021, and /sys must be mounted",
            ),
        ),
        Some(KernelError::Btf(_)) => {
            (1, Some("kernels from 5.10 on are supported; portwatch doctor shows what was found"))
        }
        Some(KernelError::NoHooks { .. }) => (
            1,
            Some(
                "mount a cgroup2 hierarchy (mount -t cgroup2 none /sys/fs/cgroup), or use a \
                  kernel that permits fexit programs; portwatch doctor shows what was found",
            ),
        ),
        Some(KernelError::Aya { .. }) => {
            (1, Some("portwatch doctor shows what this kernel and these rights allow"))
        }
        None => (1, None),
    }
}
