//! Hook sets: what is known of each, as plain data, in a file of its own
//! (docs/extending.md).

use super::{Unusable, features::Features};

mod fexit;
mod tracepoint;

/// A set of hooks. The first in this order that can be used is the preferred one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[derive(strum::Display, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum HookSet {
    /// Function exits.
    Fexit,
    /// `cgroup/bind4|6` and BTF tracepoints.
    Tracepoint,
}

impl HookSet {
    /// Returns what is known of it.
    pub fn spec(self) -> &'static Spec {
        match self {
            Self::Fexit => &fexit::SET,
            Self::Tracepoint => &tracepoint::SET,
        }
    }

    /// Whether it can be used, or why not.
    ///
    /// # Errors
    /// The kernel has refused its first program, or lacks what it is attached to.
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

/// What is known of a set.
#[derive(Debug)]
pub struct Spec {
    /// What `--hooks` with its name means.
    pub help: &'static str,
    /// What its programs are attached to.
    pub hooks: &'static str,
    /// Whether only an attempt shows that its first program can be attached.
    pub is_tried: bool,
    /// Whether it is of no use without a cgroup2 hierarchy.
    pub needs_cgroup2: bool,
    /// Its programs.
    pub probes: &'static [Probe],
    /// More of them, where a kernel lacks something.
    pub more: fn(&Features) -> &'static [Probe],
    /// What events of this set cannot show.
    pub misses: &'static [&'static str],
    /// What it costs the machine (measured; docs/performance.md).
    pub cost: fn(&Features) -> &'static str,
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

impl Probe {
    const fn required(program: &'static str, hook: Hook) -> Self {
        Self { program, hook, optional: None }
    }

    const fn optional(program: &'static str, hook: Hook, loss: &'static str) -> Self {
        Self { program, hook, optional: Some(loss) }
    }
}

/// In every set.
const STATE: Probe =
    Probe::optional("pw_state", Hook::TpBtf("inet_sock_set_state"), "when a listener was closed");
/// In every set.
const CGROUPS: Probe = Probe::optional(
    "pw_cgroup_gone",
    Hook::TpBtf("cgroup_rmdir"),
    "names of units and containers whose control group was removed",
);

/// Beside any set where one process's descendants are watched and programs do not see
/// a task's parents.
pub const FORKS: Probe = Probe::required("pw_fork", Hook::TpBtf("sched_process_fork"));

/// Attached in addition to any set if outcomes are reported.
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
/// The program at a process's exit.
pub const EXITED: &str = "pw_exited";
/// The program at its forks.
pub const FORKED: &str = "pw_forked";
