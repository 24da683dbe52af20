//! What to attach, decided from what was probed. Pure.

use std::path::PathBuf;

use super::{KernelError, features::Features};

/// A set of hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookSet {
    /// Function exits: the preferred set.
    Fexit,
    /// `cgroup/bind4|6` and BTF tracepoints.
    Tracepoint,
}

impl HookSet {
    /// Its stable name, as events carry it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// What events of this set cannot show.
    pub fn misses(self) -> &'static [&'static str] {
        match self {
            Self::Fexit => &[],
            Self::Tracepoint => &[
                "binds and listens through io_uring",
                "binds by the kernel itself",
                "SCTP and ICMP echo sockets (counted as losses)",
                "owner and bound device of IPv4 UDP sockets",
            ],
        }
    }

    /// What the set costs the machine (measured; docs/architecture.md).
    pub fn cost(self) -> &'static str {
        match self {
            Self::Fexit => "a trampoline on bind and listen only",
            Self::Tracepoint => "about 20 ns on every system call, about 100 ns on a bind",
        }
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Exit of a kernel function.
    Fexit(&'static str),
    /// A BTF tracepoint.
    TpBtf(&'static str),
    /// A cgroup program at the hierarchy's root.
    CgroupBind,
}

/// One program to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The program's name in the object.
    pub program: &'static str,
    /// Where it goes.
    pub hook: Hook,
    /// What events lack without it; `None` if there can be none without it.
    pub optional: Option<&'static str>,
}

/// What to attach, and why this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The chosen set.
    pub set: HookSet,
    /// Why not the preferred set.
    pub because: Option<String>,
    /// The programs.
    pub probes: Vec<Probe>,
    /// Where cgroup programs attach.
    pub cgroup2: Option<PathBuf>,
}

const fn required(program: &'static str, hook: Hook) -> Probe {
    Probe { program, hook, optional: None }
}

/// In both sets.
const STATE: Probe =
    optional("pw_state", Hook::TpBtf("inet_sock_set_state"), "when a listener has closed");

const fn optional(program: &'static str, hook: Hook, loss: &'static str) -> Probe {
    Probe { program, hook, optional: Some(loss) }
}

/// The fexit set.
pub const FEXIT: [Probe; 8] = [
    required("pw_tcp_port", Hook::Fexit("inet_csk_get_port")),
    optional("pw_udp4_port", Hook::Fexit("udp_v4_get_port"), "refusals of IPv4 UDP sockets"),
    optional("pw_udp6_port", Hook::Fexit("udp_v6_get_port"), "refusals of IPv6 UDP sockets"),
    optional("pw_inet_bind", Hook::Fexit("inet_bind"), "SCTP and ICMP echo sockets over IPv4"),
    optional("pw_inet6_bind", Hook::Fexit("inet6_bind"), "SCTP and ICMP echo sockets over IPv6"),
    optional(
        "pw_same_addr",
        Hook::Fexit("inet_rcv_saddr_equal"),
        "the kernel's own word on which socket refused",
    ),
    optional(
        "pw_conflict",
        Hook::Fexit("inet_bind_conflict"),
        "the kernel's own word on which TCP socket refused (6.1 and later)",
    ),
    STATE,
];

/// The tracepoint set.
pub const TRACEPOINT: [Probe; 5] = [
    required("pw_sys_exit", Hook::TpBtf("sys_exit")),
    required("pw_bind4", Hook::CgroupBind),
    optional("pw_bind6", Hook::CgroupBind, "refusals of IPv6 sockets"),
    optional("pw_set_state", Hook::TpBtf("inet_sock_set_state"), "refusals of listen(2)"),
    STATE,
];

/// Chooses.
///
/// # Errors
/// The rights are missing, or neither set can be used.
pub fn plan(features: &Features) -> Result<Plan, KernelError> {
    if !features.missing.is_empty() {
        return Err(KernelError::NotPermitted { missing: features.missing.clone() });
    }
    match (&features.fexit, &features.cgroup2) {
        (Ok(()), cgroup2) => Ok(Plan {
            set: HookSet::Fexit,
            because: None,
            probes: FEXIT.to_vec(),
            cgroup2: cgroup2.clone(),
        }),
        (Err(why), Some(cgroup2)) => Ok(Plan {
            set: HookSet::Tracepoint,
            because: Some(why.clone()),
            probes: TRACEPOINT.to_vec(),
            cgroup2: Some(cgroup2.clone()),
        }),
        (Err(why), None) => Err(KernelError::NoHooks {
            fexit: why.clone(),
            tracepoint: "no cgroup2 hierarchy is mounted".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Features {
        Features {
            release: "6.12".to_owned(),
            missing: Vec::new(),
            unnamed_without: Vec::new(),
            lockdown: None,
            cgroup2: Some("/sys/fs/cgroup".into()),
            fexit: Ok(()),
        }
    }

    #[test]
    fn function_exits_are_preferred_and_need_no_cgroup2() {
        let plan = plan(&Features { cgroup2: None, ..features() }).unwrap();
        assert_eq!((plan.set, plan.because), (HookSet::Fexit, None));
    }

    #[test]
    fn the_reason_for_the_second_choice_is_kept() {
        let plan = plan(&Features { fexit: Err("EPERM".to_owned()), ..features() }).unwrap();
        assert_eq!((plan.set, plan.because.as_deref()), (HookSet::Tracepoint, Some("EPERM")));
    }

    #[test]
    fn without_either_set_both_reasons_are_said() {
        let error = plan(&Features { fexit: Err("EPERM".to_owned()), cgroup2: None, ..features() })
            .unwrap_err()
            .to_string();
        assert!(error.contains("EPERM") && error.contains("cgroup2"), "{error}");
    }

    #[test]
    fn missing_rights_come_first() {
        let error = plan(&Features {
            missing: vec!["CAP_BPF"],
            fexit: Err("EPERM".to_owned()),
            cgroup2: None,
            ..features()
        });
        assert!(matches!(error, Err(KernelError::NotPermitted { .. })));
    }
}
