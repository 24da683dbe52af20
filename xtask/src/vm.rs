//! Runs the live tests and the differential test on stock Debian kernels, under QEMU without
//! KVM. On the host it installs only QEMU and busybox.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use anyhow::{bail, ensure};

use crate::{arch::Arch, cross::Target, packages::Package, root, setup};

mod archive;
mod boot;
mod debian;
mod emulator;
mod image;
mod kernels;
mod modules;
mod outcome;
mod programs;
mod scenario;
mod table;

use boot::{Clock, Guest};
use kernels::Kernel;
use outcome::Outcome;
use programs::{Programs, Tests};
use scenario::Scenario;
use table::Row;

/// Options of `vm`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    whole: Option<Whole>,
    /// Kernel series: 5.10, 6.1, 6.12, 6.16 and so on, or newest; with -16k after it, arm64
    /// kernels with pages of 16 KiB. Without any: all that are tested
    series: Vec<String>,
    /// The architecture of the guests
    #[arg(long, value_name = "ARCH", default_value_t = Arch::native(), value_enum)]
    arch: Arch,
    /// Only these scenarios; may be given several times
    #[arg(long = "scenario", value_name = "NAME", value_parser = scenario::names())]
    scenarios: Vec<String>,
    /// Only the tests in which kernels differ, instead of the whole suite
    #[arg(long)]
    quick: bool,
    /// Only the tests whose name contains this, instead of each scenario's own
    #[arg(long, value_name = "PART")]
    filter: Option<String>,
    /// How many random scenarios the differential test plays
    #[arg(long, default_value_t = 10_000)]
    differential: u32,
    /// Guests at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Write the results into docs/kernel-support.md, and replace earlier ones of these
    /// kernels
    #[arg(long, conflicts_with = "filter")]
    table: bool,
}

/// A guest that runs a whole system.
#[derive(clap::Subcommand)]
enum Whole {
    /// A whole Debian with systemd, the package, and real units
    Debian(debian::Args),
    /// The agent's cost for other processes, with each hook set, in instructions
    Overhead {
        /// Kernel series
        #[arg(default_value = "6.12")]
        series: String,
        /// The guest's architecture
        #[arg(long, value_name = "ARCH", default_value_t = Arch::native(), value_enum)]
        arch: Arch,
    },
}

/// What every guest needs.
const NEEDS: [Package; 2] = [
    Package::new("busybox-static", "/bin/busybox", "begins the guest's user space"),
    Package::new("xz-utils", "/usr/bin/xz", "unpacks kernel modules"),
];

/// Boots each kernel for each scenario; fails if any of them failed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.whole {
        Some(Whole::Debian(args)) => debian::run(args),
        Some(Whole::Overhead { series, arch }) => overhead(*arch, series),
        None => matrix(args),
    }
}

/// Installs what every guest needs and what this one needs in addition, and returns the cache
/// directory.
fn prepare(arch: Arch, more: &[Package]) -> anyhow::Result<PathBuf> {
    setup::for_guests(&[&NEEDS[..], more].concat())?;
    let cache = root().join("target/vm");
    fs::create_dir_all(&cache)?;
    emulator::install(&cache, arch)?;
    Ok(cache)
}

/// Builds the agent that the guests run, and returns its path.
pub fn build_agent(arch: Arch) -> anyhow::Result<PathBuf> {
    setup::for_building()?;
    Ok(programs::build_programs(&Target::prepare(arch)?)?.portwatch)
}

/// What a guest needs besides a kernel.
struct Workshop {
    arch: Arch,
    cache: PathBuf,
    programs: Programs,
    tests: Tests,
}

impl Workshop {
    fn build(arch: Arch) -> anyhow::Result<Self> {
        let cache = prepare(arch, &[])?;
        let target = Target::prepare(arch)?;
        let (programs, tests) =
            (programs::build_programs(&target)?, programs::build_tests(&target)?);
        Ok(Self { arch, cache, programs, tests })
    }

    fn kernel(&self, series: &str) -> anyhow::Result<(Kernel, PathBuf)> {
        let kernel = kernels::fetch(self.arch, series, &self.cache)?;
        let initrd = image::build(self.arch, &kernel, &self.programs, &self.tests, &self.cache)?;
        Ok((kernel, initrd))
    }
}

/// Counts instructions instead of time, because emulation has its own speed.
fn overhead(arch: Arch, series: &str) -> anyhow::Result<()> {
    let workshop = Workshop::build(arch)?;
    let (kernel, initrd) = workshop.kernel(series)?;
    let folder = workshop.cache.join("runs").join(format!("{} overhead", kernel.version));
    fs::create_dir_all(&folder)?;
    let parameters = "GUEST_OVERHEAD=1 OVERHEAD_TURNS=5";
    let Kernel { vmlinuz, .. } = &kernel;
    let said = boot::boot(arch, vmlinuz, &initrd, None, Clock::Instructions, parameters, &folder)?;
    println!("{}, a nanosecond is an instruction:\n{}", kernel.version, said.output);
    let outcome = Outcome::read(&said.output, "none");
    ensure!(outcome.ended(), "the guest did not come to its end");
    ensure!(said.output.contains("exit status: 0"), "the benchmark failed");
    ensure!(outcome.warnings == 0, "the guest's kernel gave warnings");
    Ok(())
}

fn matrix(args: &Args) -> anyhow::Result<()> {
    let workshop = Workshop::build(args.arch)?;
    let mut guests = VecDeque::new();
    let asked: Vec<_> = args.series.iter().map(String::as_str).collect();
    for series in if asked.is_empty() { args.arch.facts().series } else { &asked } {
        let (kernel, initrd) = workshop.kernel(series)?;
        for scenario in chosen(args) {
            if !scenario.exists_on(args.arch, &kernels::numbers(&kernel.version)) {
                println!("vm: {} cannot play {}", kernel.version, scenario.name);
                continue;
            }
            guests.push_back(guest(args, &kernel, initrd.clone(), scenario, &workshop.cache)?);
        }
    }
    ensure!(!guests.is_empty(), "none of these kernels can play the scenarios");
    let mut rows = boot_all(guests, args.jobs)?;
    rows.sort_by_key(Row::order);
    println!("\n{}", table::render(&rows));
    if args.table {
        table::enter(&root().join("docs/kernel-support.md"), &rows)?;
    }
    let failed: Vec<_> = rows.iter().filter(|row| !row.passed).map(Row::name).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn chosen(args: &Args) -> impl Iterator<Item = &'static Scenario> {
    let wanted = |name: &str| args.scenarios.is_empty() || args.scenarios.iter().any(|s| s == name);
    scenario::ALL.iter().filter(move |scenario| wanted(scenario.name))
}

fn guest(
    args: &Args,
    kernel: &Kernel,
    initrd: PathBuf,
    scenario: &'static Scenario,
    cache: &Path,
) -> anyhow::Result<Guest> {
    let folder = cache.join("runs").join(format!("{} {}", kernel.version, scenario.name));
    fs::create_dir_all(&folder)?;
    let tests = match &args.filter {
        Some(filter) => filter.clone(),
        None => scenario.tests(args.quick).join(","),
    };
    ensure!(
        tests.chars().all(|char| char.is_ascii_alphanumeric() || "_:,-".contains(char)),
        "a test's name has letters, digits, _, : and - only"
    );
    let version = kernels::numbers(&kernel.version);
    let is_differential = scenario.is_differential(args.arch, &version);
    let differential = if is_differential { args.differential } else { 0 };
    Ok(Guest {
        arch: args.arch,
        release: kernel.version.clone(),
        vmlinuz: kernel.vmlinuz.clone(),
        initrd,
        scenario,
        whole: scenario.tests(args.quick).is_empty(),
        folder,
        parameters: scenario.parameters(&tests, differential),
    })
}

/// Boots all guests, this many at a time.
fn boot_all(guests: VecDeque<Guest>, jobs: u8) -> anyhow::Result<Vec<Row>> {
    let waiting = Mutex::new(guests);
    let next = || waiting.lock().map_or(None, |mut waiting| waiting.pop_front());
    let work = || -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        while let Some(guest) = next() {
            println!("vm: booting {}", guest.name());
            let (outcome, seconds) = guest.run()?;
            println!("vm: {} {} in {seconds} s", guest.name(), outcome.word());
            rows.push(Row::new(&guest, &outcome, seconds));
        }
        Ok(rows)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let mut rows = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(done) => rows.extend(done?),
                Err(_) => bail!("a guest's thread panicked"),
            }
        }
        Ok(rows)
    })
}
