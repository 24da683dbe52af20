//! Decides from the probed features which programs to attach. Pure.

use std::path::PathBuf;

use super::{KernelError, Unusable, features::Features};

/// A hook set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum HookSet {
    /// Function exits: the preferred set.
    Fexit,
    /// `cgroup/bind4|6` and BTF tracepoints.
    Tracepoint,
}

impl HookSet {
    /// Returns what events of this set cannot show.
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
}

/// The hook set that the user requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Function exits if the kernel permits them, otherwise tracepoints.
    #[default]
    Auto,
    /// Function exits only.
    Fexit,
    /// Tracepoints, even if function exits are permitted.
    Tracepoint,
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
    /// The hook.
    pub hook: Hook,
    /// What events lack without it; `None` if it is required.
    pub optional: Option<&'static str>,
}

/// The programs to attach, and the reason for the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The chosen set.
    pub set: HookSet,
    /// Why not the preferred set; `None` also if the other was requested.
    pub because: Option<Unusable>,
    /// The programs.
    pub probes: Vec<Probe>,
    /// The root of the cgroup2 hierarchy.
    pub cgroup2: Option<PathBuf>,
}

impl Plan {
    /// Returns what it costs the machine (measured; docs/performance.md).
    pub fn cost(&self) -> &'static str {
        match self.set {
            HookSet::Fexit => {
                "less than a microsecond on a bind and its listen, nothing on other system calls"
            }
            HookSet::Tracepoint if self.probes.contains(&AGAIN) => {
                "20 to 60 ns on every system call, about a microsecond on a bind and its listen"
            }
            HookSet::Tracepoint => {
                "10 to 30 ns on every system call, about a microsecond on a bind and its listen"
            }
        }
    }
}

const fn required(program: &'static str, hook: Hook) -> Probe {
    Probe { program, hook, optional: None }
}

/// In both sets.
const STATE: Probe =
    optional("pw_state", Hook::TpBtf("inet_sock_set_state"), "when a listener was closed");
/// In both sets.
const CGROUPS: Probe = optional(
    "pw_cgroup_gone",
    Hook::TpBtf("cgroup_rmdir"),
    "names of units and containers whose control group was removed",
);

const fn optional(program: &'static str, hook: Hook, loss: &'static str) -> Probe {
    Probe { program, hook, optional: Some(loss) }
}

/// The fexit set.
pub const FEXIT: [Probe; 9] = [
    required("pw_tcp_port", Hook::Fexit("inet_csk_get_port")),
    optional("pw_udp4_port", Hook::Fexit("udp_v4_get_port"), "failed binds of IPv4 UDP sockets"),
    optional("pw_udp6_port", Hook::Fexit("udp_v6_get_port"), "failed binds of IPv6 UDP sockets"),
    optional("pw_inet_bind", Hook::Fexit("inet_bind"), "SCTP and ICMP echo sockets over IPv4"),
    optional("pw_inet6_bind", Hook::Fexit("inet6_bind"), "SCTP and ICMP echo sockets over IPv6"),
    optional(
        "pw_same_addr",
        Hook::Fexit("inet_rcv_saddr_equal"),
        "which socket blocks the bind, by the kernel's own check",
    ),
    optional(
        "pw_conflict",
        Hook::Fexit("inet_bind_conflict"),
        "which TCP socket blocks the bind, by the kernel's own check (6.1 and later)",
    ),
    STATE,
    CGROUPS,
];

/// Added to the fexit set where that cannot create cookies: without cookies nothing is
/// recorded. Without a cgroup2 hierarchy they cannot be attached, which is reported.
pub const COOKIES: [Probe; 2] = [
    optional("pw_cookie4", Hook::CgroupBind, "previous holders of IPv4 ports"),
    optional("pw_cookie6", Hook::CgroupBind, "previous holders of IPv6 ports"),
];

/// Added to both sets where one process's descendants are watched and programs cannot read a
/// task's parents.
pub const FORKS: Probe = required("pw_fork", Hook::TpBtf("sched_process_fork"));

/// The tracepoint set.
pub const TRACEPOINT: [Probe; 6] = [
    required("pw_sys_exit", Hook::TpBtf("sys_exit")),
    required("pw_bind4", Hook::CgroupBind),
    optional("pw_bind6", Hook::CgroupBind, "failed binds of IPv6 sockets"),
    optional("pw_set_state", Hook::TpBtf("inet_sock_set_state"), "failed listen(2) calls"),
    STATE,
    CGROUPS,
];

/// Added to the tracepoint set where a task can be preempted in `pw_sys_exit`.
pub const AGAIN: Probe = required("pw_sys_exit_again", Hook::TpBtf("sys_exit"));

/// Chooses the programs.
///
/// # Errors
/// Capabilities are missing, or the requested set cannot be used; without a request, neither
/// set.
pub fn plan(features: &Features, choice: Choice) -> Result<Plan, KernelError> {
    if !features.missing.is_empty() {
        return Err(KernelError::NotPermitted { missing: features.missing.clone() });
    }
    let fexit = features.fexit.clone();
    let tracepoint = features.cgroup2.as_ref().ok_or(Unusable::NoCgroup2);
    let (set, because) = match (choice, fexit, tracepoint) {
        (Choice::Auto | Choice::Fexit, Ok(()), _) => (HookSet::Fexit, None),
        (Choice::Auto, Err(why), Ok(_)) => (HookSet::Tracepoint, Some(why)),
        (Choice::Tracepoint, _, Ok(_)) => (HookSet::Tracepoint, None),
        (Choice::Auto, Err(fexit), Err(tracepoint)) => {
            return Err(KernelError::NoHooks { fexit, tracepoint });
        }
        (Choice::Fexit, Err(why), _) => {
            return Err(KernelError::NotThisSet { set: HookSet::Fexit.into(), why });
        }
        (Choice::Tracepoint, _, Err(why)) => {
            return Err(KernelError::NotThisSet { set: HookSet::Tracepoint.into(), why });
        }
    };
    let mut probes = match set {
        HookSet::Fexit => FEXIT.to_vec(),
        HookSet::Tracepoint => TRACEPOINT.to_vec(),
    };
    if set == HookSet::Fexit && !features.cookies {
        probes.extend(COOKIES);
    }
    if set == HookSet::Tracepoint && features.preempts {
        probes.push(AGAIN);
    }
    Ok(Plan { set, because, probes, cgroup2: features.cgroup2.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Unusable {
        Unusable::Refused { answer: "EPERM".to_owned() }
    }

    fn features() -> Features {
        Features {
            release: "6.12".to_owned(),
            missing: Vec::new(),
            unnamed_without: Vec::new(),
            lockdown: None,
            cgroup2: Some("/sys/fs/cgroup".into()),
            fexit: Ok(()),
            cookies: true,
            preempts: false,
        }
    }

    #[test]
    fn cookies_are_asked_for_where_function_exits_cannot() {
        let has_them = |features: &Features| {
            let plan = plan(features, Choice::Auto).unwrap();
            plan.probes.iter().any(|probe| probe.program == "pw_cookie4")
        };
        let old = Features { cookies: false, ..features() };
        assert!(has_them(&old) && !has_them(&features()));
        assert!(has_them(&Features { cgroup2: None, ..old.clone() }), "what is missed is said");
        assert!(!has_them(&Features { fexit: Err(refused()), ..old }));
    }

    #[test]
    fn a_second_program_is_there_where_the_first_may_be_skipped() {
        let has_it = |features: &Features, choice| {
            let plan = plan(features, choice).unwrap();
            plan.probes.contains(&AGAIN)
        };
        let preempts = Features { preempts: true, ..features() };
        assert!(has_it(&preempts, Choice::Tracepoint) && !has_it(&preempts, Choice::Fexit));
        assert!(!has_it(&features(), Choice::Tracepoint));
    }

    #[test]
    fn function_exits_are_preferred_and_need_no_cgroup2() {
        let plan = plan(&Features { cgroup2: None, ..features() }, Choice::Auto).unwrap();
        assert_eq!((plan.set, plan.because), (HookSet::Fexit, None));
    }

    #[test]
    fn the_reason_for_the_second_choice_is_kept() {
        let features = Features { fexit: Err(refused()), ..features() };
        let plan = plan(&features, Choice::Auto).unwrap();
        assert_eq!((plan.set, plan.because), (HookSet::Tracepoint, Some(refused())));
    }

    #[test]
    fn without_either_set_both_reasons_are_said() {
        let features = Features { fexit: Err(refused()), cgroup2: None, ..features() };
        let error = plan(&features, Choice::Auto).unwrap_err().to_string();
        assert!(error.contains("EPERM") && error.contains("cgroup2"), "{error}");
    }

    #[test]
    fn missing_rights_come_first() {
        let features = Features {
            missing: vec!["CAP_BPF"],
            fexit: Err(refused()),
            cgroup2: None,
            ..features()
        };
        let error = plan(&features, Choice::Tracepoint);
        assert!(matches!(error, Err(KernelError::NotPermitted { .. })));
    }

    #[test]
    fn a_set_that_is_asked_for_is_used_or_nothing() {
        let asked = plan(&features(), Choice::Tracepoint).unwrap();
        assert_eq!((asked.set, asked.because), (HookSet::Tracepoint, None));
        let refused = Features { fexit: Err(refused()), ..features() };
        let error = plan(&refused, Choice::Fexit).unwrap_err().to_string();
        assert!(error.contains("fexit") && error.contains("EPERM"), "{error}");
        let unmounted = Features { cgroup2: None, ..features() };
        let error = plan(&unmounted, Choice::Tracepoint).unwrap_err().to_string();
        assert!(error.contains("tracepoint") && error.contains("cgroup2"), "{error}");
    }
}
