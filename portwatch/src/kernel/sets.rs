//! Hook sets: the facts about each, as plain data, in a file of its own (docs/extending.md).

use super::{Unusable, features::Features};

mod fexit;
mod kprobe;
mod tracepoint;

/// A hook set. The first one in this order that can be used is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum HookSet {
    /// Function exits.
    Fexit,
    /// Entries and returns of functions.
    Kprobe,
    /// `cgroup/bind4|6` and BTF tracepoints.
    Tracepoint,
}

impl HookSet {
    /// Returns the facts about the hook set.
    pub fn spec(self) -> &'static Spec {
        match self {
            Self::Fexit => &fexit::SET,
            Self::Kprobe => &kprobe::SET,
            Self::Tracepoint => &tracepoint::SET,
        }
    }

    /// Checks whether it can be used.
    ///
    /// # Errors
    /// The kernel has rejected its first program, or does not have what the program attaches
    /// to.
    pub fn usable(self, features: &Features) -> Result<(), Unusable> {
        let refused = features.refused.iter().find(|(set, _)| *set == self);
        match refused {
            Some((_, why)) => Err(why.clone()),
            None if self.spec().needs_cgroup2 && features.cgroup2.is_none() => {
                Err(Unusable::NoCgroup2)
            }
            None => Ok(()),
        }
    }
}

/// The facts about a hook set.
#[derive(Debug)]
pub struct Spec {
    /// The help text of its name as a value of `--hooks`.
    pub help: &'static str,
    /// What its programs are attached to.
    pub hooks: &'static str,
    /// Whether only an attempt shows that its first program can be attached.
    pub is_tried: bool,
    /// Whether it cannot be used without a cgroup2 hierarchy.
    pub needs_cgroup2: bool,
    /// Its programs.
    pub probes: &'static [Probe],
    /// Additional programs, for kernels that lack something.
    pub more: fn(&Features) -> &'static [Probe],
    /// What events of this hook set cannot show.
    pub misses: &'static [&'static str],
    /// What it costs the machine (measured; docs/performance.md).
    pub cost: fn(&Features) -> &'static str,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Exit of a kernel function.
    Fexit(&'static str),
    /// Entry of a kernel function.
    Kprobe(&'static str),
    /// Return of a kernel function.
    Kretprobe(&'static str),
    /// A BTF tracepoint.
    TpBtf(&'static str),
    /// A cgroup program at the hierarchy's root.
    CgroupBind,
}

impl Hook {
    /// Returns the function whose entry or return it is.
    pub fn function(self) -> Option<&'static str> {
        match self {
            Self::Kprobe(function) | Self::Kretprobe(function) => Some(function),
            Self::Fexit(_) | Self::TpBtf(_) | Self::CgroupBind => None,
        }
    }
}

/// One program to attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The program's name in the object.
    pub program: &'static str,
    /// Where it is attached.
    pub hook: Hook,
    /// What events lack without it, or `None` if there are no events without it.
    pub optional: Option<&'static str>,
}

impl Probe {
    const fn required(program: &'static str, hook: Hook) -> Self {
        Self { program, hook, optional: None }
    }

    const fn optional(program: &'static str, hook: Hook, loss: &'static str) -> Self {
        Self { program, hook, optional: Some(loss) }
    }
}

/// Part of every hook set.
const STATE: Probe =
    Probe::optional("pw_state", Hook::TpBtf("inet_sock_set_state"), "when a listener was closed");
/// Part of every hook set.
const CGROUPS: Probe = Probe::optional(
    "pw_cgroup_gone",
    Hook::TpBtf("cgroup_rmdir"),
    "names of units and containers whose control group was removed",
);

/// For programs that cannot generate a socket's cookie: without cookies nothing is recorded.
/// Without a cgroup2 hierarchy these programs cannot be attached, which is reported.
const COOKIES: [Probe; 2] = [
    Probe::optional("pw_cookie4", Hook::CgroupBind, "previous holders of IPv4 ports"),
    Probe::optional("pw_cookie6", Hook::CgroupBind, "previous holders of IPv6 ports"),
];

/// For kernels that skip programs at the end of binds.
const BEGINS: [Probe; 2] = [
    Probe::optional("pw_begin4", Hook::CgroupBind, "how many ends of IPv4 binds the kernel skips"),
    Probe::optional("pw_begin6", Hook::CgroupBind, "how many ends of IPv6 binds the kernel skips"),
];
/// Both.
const COOKIES_AND_BEGINS: [Probe; 4] = [COOKIES[0], COOKIES[1], BEGINS[0], BEGINS[1]];

/// Attached in addition to any hook set if only the descendants of one process are watched and
/// programs cannot read a task's parents.
pub const FORKS: Probe = Probe::required("pw_fork", Hook::TpBtf("sched_process_fork"));

/// Attached in addition to any hook set if outcomes are reported.
pub const FOLLOW: [Probe; 2] = [
    Probe::optional(
        EXITED,
        Hook::TpBtf("sched_process_exit"),
        "how processes that could not bind ended",
    ),
    Probe::optional(
        FORKED,
        Hook::TpBtf("sched_process_fork"),
        "binds by children of processes that could not bind",
    ),
];
/// The program that runs when a process exits.
pub const EXITED: &str = "pw_exited";
/// The program that runs when a process forks.
pub const FORKED: &str = "pw_forked";
