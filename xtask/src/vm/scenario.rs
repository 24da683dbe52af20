//! The conditions under which each kernel is tested.

use crate::arch::Arch;

/// A guest's conditions, passed on the kernel's command line: parameters that the kernel does
/// not know become pid 1's environment.
#[derive(Debug, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    /// The hook set, as `--hooks` names it.
    pub hooks: &'static str,
    /// The kernel's lockdown mode.
    pub lockdown: &'static str,
    /// What is missing.
    lacks: &'static str,
    suite: Suite,
}

#[derive(Debug, PartialEq, Eq)]
enum Suite {
    Whole,
    Core,
    Only(&'static [&'static str]),
}

/// The tests in which kernels differ: every cause, every class of holder, and what only some
/// kernels have.
const CORE: &[&str] = &[
    "bound_only::", "causes::", "cost::", "eabi::", "gone::", "holder::", "hooks::",
    "listen_stage::", "netns::", "protocols::", "tcp::", "time_wait::", "udp::",
];

pub const ALL: &[Scenario] = &[
    Scenario { name: "fexit", hooks: "fexit", lockdown: "none", lacks: "", suite: Suite::Whole },
    Scenario { name: "kprobe", hooks: "kprobe", lockdown: "none", lacks: "", suite: Suite::Whole },
    Scenario {
        name: "tracepoint",
        hooks: "tracepoint",
        lockdown: "none",
        lacks: "",
        suite: Suite::Whole,
    },
    Scenario {
        name: "fexit-integrity",
        hooks: "fexit",
        lockdown: "integrity",
        lacks: "",
        suite: Suite::Core,
    },
    Scenario {
        name: "kprobe-integrity",
        hooks: "kprobe",
        lockdown: "integrity",
        lacks: "",
        suite: Suite::Core,
    },
    Scenario {
        name: "auto-confidentiality",
        hooks: "auto",
        lockdown: "confidentiality",
        lacks: "",
        suite: Suite::Only(&["hooks::", "tcp::"]),
    },
    Scenario {
        name: "fexit-confidentiality",
        hooks: "fexit",
        lockdown: "confidentiality",
        lacks: "",
        suite: Suite::Core,
    },
    Scenario {
        name: "tracepoint-confidentiality",
        hooks: "tracepoint",
        lockdown: "confidentiality",
        lacks: "",
        suite: Suite::Core,
    },
    Scenario {
        name: "fexit-no-sock-diag",
        hooks: "fexit",
        lockdown: "none",
        lacks: "sock_diag",
        suite: Suite::Only(&["--include-ignored", "cost::", "without_sock_diag::"]),
    },
    Scenario {
        name: "kprobe-no-sock-diag",
        hooks: "kprobe",
        lockdown: "none",
        lacks: "sock_diag",
        suite: Suite::Only(&["--include-ignored", "cost::", "without_sock_diag::"]),
    },
    Scenario {
        name: "tracepoint-no-sock-diag",
        hooks: "tracepoint",
        lockdown: "none",
        lacks: "sock_diag",
        suite: Suite::Only(&["--include-ignored", "cost::", "without_sock_diag::"]),
    },
    Scenario {
        name: "fexit-no-cgroup2",
        hooks: "fexit",
        lockdown: "none",
        lacks: "cgroup2",
        suite: Suite::Only(&["cost::", "listen_stage::", "protocols::", "tcp::", "udp::"]),
    },
];

/// The names, for the command line.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|scenario| scenario.name).collect()
}

impl Scenario {
    /// Returns whether kernels of this version have the hooks: arm64 has function exits from 6.4
    /// on (`DYNAMIC_FTRACE_WITH_DIRECT_CALLS`).
    pub fn exists_on(&self, arch: Arch, version: &[u32]) -> bool {
        arch != Arch::Arm64 || self.hooks != "fexit" || version >= &[6, 4][..]
    }

    /// Returns whether the differential test runs too. It needs no hooks, so it runs with one
    /// set of each kernel.
    pub fn is_differential(&self, arch: Arch, version: &[u32]) -> bool {
        let has_fexit = ALL
            .iter()
            .any(|scenario| scenario.exists_on(arch, version) && scenario.name == "fexit");
        self.name == if has_fexit { "fexit" } else { "kprobe" }
    }

    /// Returns parts of the names of the tests that run; none for all of them.
    pub fn tests(&self, quick: bool) -> &'static [&'static str] {
        match self.suite {
            Suite::Whole if !quick => &[],
            Suite::Whole | Suite::Core => CORE,
            Suite::Only(tests) => tests,
        }
    }

    /// Returns what to append to the kernel's command line. Under emulation everything takes
    /// many times as long, so the agent has more time for an event.
    pub fn parameters(&self, tests: &str, differential: u32) -> String {
        let Self { hooks, lockdown, lacks, .. } = self;
        let mut parameters = format!(
            "PORTWATCH_HOOKS={hooks} PORTWATCH_ENRICHMENT_DEADLINE=5s GUEST_TESTS={tests} \
             GUEST_LACKS={lacks} GUEST_DIFFERENTIAL={differential}"
        );
        if *lockdown != "none" {
            parameters.push_str(&format!(" lockdown={lockdown}"));
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn arm64_has_function_exits_from_6_4_on() {
        let fexit = ALL.iter().find(|scenario| scenario.name == "fexit").unwrap();
        assert!(!fexit.exists_on(Arch::Arm64, &[6, 1, 0, 57]));
        assert!(fexit.exists_on(Arch::Arm64, &[6, 12, 118]));
        assert!(fexit.exists_on(Arch::Amd64, &[5, 10, 0, 32]));
        let played = |version: &[u32]| -> Vec<_> {
            let with = ALL.iter().filter(|it| it.is_differential(Arch::Arm64, version));
            with.map(|scenario| scenario.name).collect()
        };
        assert_eq!((played(&[6, 1]), played(&[6, 12])), (vec!["kprobe"], vec!["fexit"]));
    }

    #[test]
    fn the_circumstances_are_on_the_command_line() {
        let locked = ALL.iter().find(|scenario| scenario.name == "fexit-confidentiality").unwrap();
        let line = locked.parameters("tcp::,udp::", 0);
        for part in ["PORTWATCH_HOOKS=fexit", "GUEST_TESTS=tcp::,udp::", "lockdown=confidentiality"]
        {
            assert!(line.contains(part), "{line}");
        }
    }
}
