//! One boot under QEMU's own emulation: with KVM the kernels hang here, so it is
//! never used, and every run has an end.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::vm::{emulator, outcome::Outcome, scenario::Scenario};

/// Longer than the whole suite takes on a slow machine with another guest beside it.
const DEADLINE: Duration = Duration::from_secs(2400);

/// A guest that is ready to boot.
pub struct Guest {
    /// The kernel's, as `uname -r` will say.
    pub release: String,
    pub vmlinuz: PathBuf,
    pub initrd: PathBuf,
    pub scenario: &'static Scenario,
    /// Whether the whole suite runs.
    pub whole: bool,
    /// Where what it says is kept.
    pub folder: PathBuf,
    /// What it is to do.
    pub parameters: String,
}

impl Guest {
    /// Kernel and scenario.
    pub fn name(&self) -> String {
        format!("{} {}", self.release, self.scenario.name)
    }

    /// Boots it and waits for its end; gives what it came to and how many seconds it took.
    /// Shows what it said if it failed.
    pub fn run(&self) -> anyhow::Result<(Outcome, u64)> {
        let Self { vmlinuz, initrd, folder, parameters, .. } = self;
        let said = boot(vmlinuz, initrd, None, Clock::Real, parameters, folder)?;
        let outcome = Outcome::read(&said.output, self.scenario.lockdown);
        if !outcome.passed() {
            println!("vm: {} said:\n{}", self.name(), said.output);
            if !outcome.ended() {
                println!("vm: its console:\n{}", said.console);
            }
        }
        Ok((outcome, said.seconds))
    }
}

/// How a guest's time passes.
#[derive(Clone, Copy)]
pub enum Clock {
    /// As it does here, on two processors.
    Real,
    /// A nanosecond for each instruction, on one processor: what is measured does not
    /// depend on what else this machine does.
    Instructions,
}

impl Clock {
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Real => &["-accel", "tcg,thread=multi", "-smp", "2"],
            Self::Instructions => {
                &["-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off"]
            }
        }
    }
}

/// What came of a boot.
pub struct Said {
    /// On the second serial port.
    pub output: String,
    /// By the kernel.
    pub console: String,
    /// How long it ran.
    pub seconds: u64,
}

/// Boots a kernel with an initramfs, and with a disk where there is one (what is written
/// to it is kept apart, and not for long), and waits for its end.
pub fn boot(
    vmlinuz: &Path,
    initrd: &Path,
    disk: Option<&Path>,
    clock: Clock,
    parameters: &str,
    folder: &Path,
) -> anyhow::Result<Said> {
    let (console, out) = (folder.join("console"), folder.join("output"));
    for file in [&console, &out] {
        File::create(file)?;
    }
    let serial = |path: &Path| format!("file:{}", path.display());
    let drive =
        disk.map(|disk| format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
    let parameters =
        format!("console=ttyS0 loglevel=4 panic=-1 oops=panic rdinit=/init {parameters}");
    let start = Instant::now();
    let mut qemu = Command::new(emulator::PROGRAM)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(clock.options())
        .args(["-cpu", "max", "-m", "1024"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", &parameters])
        .args(["-serial", &serial(&console), "-serial", &serial(&out)])
        .args(drive.iter().flat_map(|drive| ["-drive", drive]))
        .spawn()
        .with_context(|| format!("failed to start {}", emulator::PROGRAM))?;
    while qemu.try_wait()?.is_none() {
        if start.elapsed() > DEADLINE {
            qemu.kill()?;
            qemu.wait()?;
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Said { output: text(&out)?, console: text(&console)?, seconds: start.elapsed().as_secs() })
}
