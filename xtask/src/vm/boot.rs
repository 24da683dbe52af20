//! One boot under QEMU's own emulation: with KVM the kernels hang here, so it is
//! never used, and every run has an end.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Longer than the whole suite takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(1500);

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The suite's exit status; `None` if the guest never said it.
    status: Option<i32>,
    /// Warnings of the guest's kernel.
    warnings: usize,
}

impl Outcome {
    /// The suite passed and the kernel had nothing to complain of.
    pub fn passed(&self) -> bool {
        self.status == Some(0) && self.warnings == 0
    }

    /// The outcome in a few words.
    pub fn word(&self) -> String {
        match (self.status, self.warnings) {
            (Some(0), 0) => "passed".to_owned(),
            (Some(0), warnings) => format!("passed, but its kernel gave {warnings} warnings"),
            (Some(status), _) => format!("failed with status {status}"),
            (None, _) => "did not end".to_owned(),
        }
    }

    fn read(output: &str) -> Self {
        let status = output
            .lines()
            .filter_map(|line| line.trim().strip_prefix("exit status: ")?.parse().ok())
            .next_back();
        let warnings = output.lines().filter(|line| line.starts_with("kernel: ")).count();
        // Only after this line are all warnings there.
        let complete = output.contains("end of run");
        Self { status: status.filter(|_| complete), warnings }
    }
}

/// Boots and shows the tests' output as it comes.
pub fn run(vmlinuz: &Path, initrd: &Path, cache: &Path) -> anyhow::Result<Outcome> {
    let (console, out) = (cache.join("console"), cache.join("output"));
    for file in [&console, &out] {
        File::create(file)?;
    }
    let serial = |path: &Path| format!("file:{}", path.display());
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1024", "-smp", "2"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 loglevel=4 panic=-1 oops=panic rdinit=/init"])
        .args(["-serial", &serial(&console), "-serial", &serial(&out)])
        .spawn()
        .context("failed to start qemu-system-x86_64")?;
    let end = Instant::now() + DEADLINE;
    let mut shown = 0;
    loop {
        let ended = qemu.try_wait()?.is_some();
        shown = show_from(&out, shown)?;
        if ended {
            break;
        }
        if Instant::now() > end {
            qemu.kill()?;
            qemu.wait()?;
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let outcome = Outcome::read(&fs::read_to_string(&out)?);
    if outcome.status.is_none() {
        eprintln!("vm: the guest's console:\n{}", fs::read_to_string(&console)?);
    }
    Ok(outcome)
}

/// Copies what was added to the file to stdout; gives the new position.
fn show_from(path: &Path, position: u64) -> anyhow::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(position))?;
    let mut new = Vec::new();
    file.read_to_end(&mut new)?;
    std::io::stdout().write_all(&new)?;
    Ok(position + new.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_passes_only_if_it_said_so_to_the_end() {
        let read = |text| Outcome::read(text);
        assert!(read("test result: ok\nexit status: 0\r\nend of run\n").passed());
        assert!(!read("exit status: 0\n").passed(), "cut short");
        assert!(!read("exit status: 101\nend of run\n").passed());
        assert!(!read("exit status: 0\nkernel: WARNING: at x\nend of run\n").passed());
        assert!(!read("").passed());
    }
}
