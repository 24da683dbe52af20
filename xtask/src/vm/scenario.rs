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
    /// The processors, as QEMU's option `-smp` has them.
    pub processors: &'static str,
    /// Those that may ever be there, as the kernel lists them.
    possible: &'static str,
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

const PLAIN: Scenario = Scenario {
    name: "",
    hooks: "auto",
    lockdown: "none",
    lacks: "",
    processors: TWO,
    possible: "0-1",
    suite: Suite::Whole,
};

/// The processors of every other guest.
pub const TWO: &str = "2";

const WITHOUT_SOCK_DIAG: Suite =
    Suite::Only(&["--include-ignored", "cost::", "without_sock_diag::"]);

pub const ALL: &[Scenario] = &[
    Scenario { name: "fexit", hooks: "fexit", ..PLAIN },
    Scenario { name: "kprobe", hooks: "kprobe", ..PLAIN },
    Scenario { name: "tracepoint", hooks: "tracepoint", ..PLAIN },
    Scenario {
        name: "fexit-integrity",
        hooks: "fexit",
        lockdown: "integrity",
        suite: Suite::Core,
        ..PLAIN
    },
    Scenario {
        name: "kprobe-integrity",
        hooks: "kprobe",
        lockdown: "integrity",
        suite: Suite::Core,
        ..PLAIN
    },
    Scenario {
        name: "auto-confidentiality",
        lockdown: "confidentiality",
        suite: Suite::Only(&["hooks::", "tcp::"]),
        ..PLAIN
    },
    Scenario {
        name: "fexit-confidentiality",
        hooks: "fexit",
        lockdown: "confidentiality",
        suite: Suite::Core,
        ..PLAIN
    },
    Scenario {
        name: "tracepoint-confidentiality",
        hooks: "tracepoint",
        lockdown: "confidentiality",
        suite: Suite::Core,
        ..PLAIN
    },
    Scenario {
        name: "fexit-no-sock-diag",
        hooks: "fexit",
        lacks: "sock_diag",
        suite: WITHOUT_SOCK_DIAG,
        ..PLAIN
    },
    Scenario {
        name: "kprobe-no-sock-diag",
        hooks: "kprobe",
        lacks: "sock_diag",
        suite: WITHOUT_SOCK_DIAG,
        ..PLAIN
    },
    Scenario {
        name: "tracepoint-no-sock-diag",
        hooks: "tracepoint",
        lacks: "sock_diag",
        suite: WITHOUT_SOCK_DIAG,
        ..PLAIN
    },
    Scenario {
        name: "fexit-no-cgroup2",
        hooks: "fexit",
        lacks: "cgroup2",
        suite: Suite::Only(&[
            "cost::", "listen_stage::", "protocols::", "systems::", "tcp::", "udp::",
        ]),
        ..PLAIN
    },
    Scenario {
        name: "many-processors",
        // Two now, and sockets for more.
        processors: "2,maxcpus=128",
        possible: "0-127",
        suite: Suite::Only(&["load::", "memory::", "storms::", "systems::", "tcp::"]),
        ..PLAIN
    },
];

/// The names, for the command line.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|scenario| scenario.name).collect()
}

impl Scenario {
    /// Returns whether kernels of this version have the hooks and the processors: arm64 has
    /// function exits from 6.4 on (`DYNAMIC_FTRACE_WITH_DIRECT_CALLS`).
    pub fn exists_on(&self, arch: Arch, version: &[u32]) -> bool {
        if self.processors != TWO {
            // QEMU's arm64 machine cannot add processors, and from 6.9 on the kernel ignores absent
            // ones of a package that has a present one (arch/x86/kernel/cpu/topology.c).
            return arch == Arch::Amd64 && version < &[6, 9][..];
        }
        arch == Arch::Amd64 || self.hooks != "fexit" || version >= &[6, 4][..]
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
        let Self { hooks, lockdown, lacks, possible, .. } = self;
        let mut parameters = format!(
            "PORTWATCH_HOOKS={hooks} PORTWATCH_ENRICHMENT_DEADLINE=5s GUEST_TESTS={tests} \
             GUEST_LACKS={lacks} GUEST_DIFFERENTIAL={differential} GUEST_PROCESSORS={possible}"
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
    fn not_every_kernel_has_every_scenario() {
        let fexit = ALL.iter().find(|scenario| scenario.name == "fexit").unwrap();
        assert!(!fexit.exists_on(Arch::Arm64, &[6, 1, 0, 57]));
        assert!(fexit.exists_on(Arch::Arm64, &[6, 12, 118]));
        assert!(fexit.exists_on(Arch::Amd64, &[5, 10, 0, 32]));
        let many = ALL.iter().find(|scenario| scenario.name == "many-processors").unwrap();
        assert!(many.exists_on(Arch::Amd64, &[6, 1, 0, 57]));
        assert!(!many.exists_on(Arch::Amd64, &[6, 12, 118]));
        assert!(!many.exists_on(Arch::Arm64, &[6, 1, 0, 57]));
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
