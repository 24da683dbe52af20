//! The architectures for which portwatch is built and tested, as data.

use clap::ValueEnum;

/// An architecture, by Debian's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Amd64,
    Arm64,
}

/// What is known of an architecture.
pub struct Facts {
    /// Debian's name.
    pub debian: &'static str,
    /// systemd's name (ConditionArchitecture=, systemd.unit(5)).
    pub systemd: &'static str,
    /// Rust's name of the target with glibc.
    pub target: &'static str,
    /// Flags for linking on the architecture itself: relocations are packed (DT_RELR; glibc applies
    /// them from 2.36 on), which is 215 KB less. Both lld and GNU's ld have this option, the latter
    /// for amd64 from 2.38 on.
    pub linking: &'static [&'static str],
    /// The start of the names of the cross compiler's programs.
    pub gnu: &'static str,
    /// QEMU's program and its package.
    pub qemu: (&'static str, &'static str),
    /// Its options for the machine that it emulates.
    pub machine: &'static [&'static str],
    /// The first serial port, for the kernel's console, and the second, for the output.
    pub serial: (&'static str, &'static str),
    /// Kernel series that are tested without a request for others.
    pub series: &'static [&'static str],
}

impl Arch {
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The architecture of this machine.
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    pub const fn is_native(self) -> bool {
        self as u8 == Self::native() as u8
    }

    pub const fn facts(self) -> &'static Facts {
        match self {
            Self::Amd64 => &Facts {
                debian: "amd64",
                systemd: "x86-64",
                target: "x86_64-unknown-linux-gnu",
                linking: &["-Clink-arg=-Wl,-z,pack-relative-relocs"],
                gnu: "x86_64-linux-gnu",
                qemu: ("qemu-system-x86_64", "qemu-system-x86"),
                machine: &[],
                serial: ("ttyS0", "ttyS1"),
                series: &["5.10", "6.1", "6.12", "6.18", "newest"],
            },
            Self::Arm64 => &Facts {
                debian: "arm64",
                systemd: "arm64",
                target: "aarch64-unknown-linux-gnu",
                linking: &[],
                gnu: "aarch64-linux-gnu",
                qemu: ("qemu-system-aarch64", "qemu-system-arm"),
                machine: &["-M", "virt"],
                serial: ("ttyAMA0", "ttyAMA1"),
                series: &["5.10", "6.1", "6.12", "newest", "newest-16k"],
            },
        }
    }
}
