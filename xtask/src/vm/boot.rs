//! One boot under QEMU's own emulation. It never uses KVM, under which the kernels hang here,
//! and every run has a time limit.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    arch::Arch,
    vm::{outcome::Outcome, scenario::Scenario},
};

/// Longer than the whole suite takes on a slow machine with another guest running.
const DEADLINE: Duration = Duration::from_secs(2400);
/// Until init's first line. Now and then an emulated kernel hangs before init; nothing of ours
/// has run then.
const START: Duration = Duration::from_secs(300);
/// How often a kernel may hang before init.
const MOST_HANGS: usize = 2;

/// A guest that is ready to boot.
pub struct Guest {
    pub arch: Arch,
    /// The kernel's, as `uname -r` will say.
    pub release: String,
    pub vmlinuz: PathBuf,
    pub initrd: PathBuf,
    pub scenario: &'static Scenario,
    /// Whether the whole suite runs.
    pub whole: bool,
    /// The directory for its output.
    pub folder: PathBuf,
    /// Its kernel parameters.
    pub parameters: String,
}

impl Guest {
    /// Kernel and scenario.
    pub fn name(&self) -> String {
        format!("{} {}", self.release, self.scenario.name)
    }

    /// Boots it and waits for its end; returns the outcome and the seconds it took. Prints its
    /// output if it failed.
    pub fn run(&self) -> anyhow::Result<(Outcome, u64)> {
        let Self { arch, vmlinuz, initrd, folder, parameters, .. } = self;
        let clock = Clock::Real(self.scenario.processors);
        let said = boot(*arch, vmlinuz, initrd, None, clock, parameters, folder)?;
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

/// The guest's clock.
#[derive(Clone, Copy)]
pub enum Clock {
    /// The host's time, on these processors (QEMU's option `-smp`).
    Real(&'static str),
    /// A nanosecond for each instruction, on one processor: a measurement does not depend on
    /// other work on this machine.
    Instructions,
}

impl Clock {
    fn options(self) -> Vec<&'static str> {
        match self {
            Self::Real(processors) => vec!["-accel", "tcg,thread=multi", "-smp", processors],
            Self::Instructions => {
                vec!["-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off"]
            }
        }
    }
}

/// The output of a boot.
pub struct Said {
    /// On the second serial port.
    pub output: String,
    /// Of the kernel.
    pub console: String,
    /// How long it ran.
    pub seconds: u64,
}

/// Boots a kernel with an initramfs, and with a disk if there is one, and waits for its end.
/// Writes to the disk go to a temporary file. If it hangs before init, it is booted again.
pub fn boot(
    arch: Arch,
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
    let facts = arch.facts();
    let (port, program) = (facts.serial.0, facts.qemu.0);
    let parameters =
        format!("console={port} loglevel=6 panic=-1 oops=panic rdinit=/init {parameters}");
    let mut command = Command::new(program);
    command
        .args(facts.machine)
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(clock.options())
        .args(["-cpu", "max", "-m", "1024"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", &parameters])
        .args(["-serial", &serial(&console), "-serial", &serial(&out)])
        .args(drive.iter().flat_map(|drive| ["-drive", drive]));
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut hangs = 0;
    loop {
        let start = Instant::now();
        let end = run(&mut command, start, || fs::metadata(&out).is_ok_and(|file| file.len() > 0))?;
        let console = text(&console)?;
        if matches!(end, End::Hung) && hangs < MOST_HANGS {
            hangs += 1;
            println!("vm: no init within {} s, booting again; its console:", START.as_secs());
            println!("{console}");
            continue;
        }
        return Ok(Said { output: text(&out)?, console, seconds: start.elapsed().as_secs() });
    }
}

/// How a boot ended.
enum End {
    /// The guest ended, or had to be ended at [`DEADLINE`].
    Ran,
    /// It had to be ended because init did not start.
    Hung,
}

/// Runs QEMU to its end. `has_init` says whether init has written its first line.
fn run(command: &mut Command, start: Instant, has_init: impl Fn() -> bool) -> anyhow::Result<End> {
    let mut qemu = command
        .spawn()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    while qemu.try_wait()?.is_none() {
        let is_hung = start.elapsed() > START && !has_init();
        if is_hung || start.elapsed() > DEADLINE {
            qemu.kill()?;
            qemu.wait()?;
            return Ok(if is_hung { End::Hung } else { End::Ran });
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(End::Ran)
}
