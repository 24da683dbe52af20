//! `cargo xtask`: everything that a fresh machine needs, in one command each.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool may end when nobody reads it"
)]

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use arch::Arch;
use clap::{Parser, Subcommand};
use cross::Target;

mod apt;
mod arch;
mod cross;
mod deb;
mod dist;
mod lint;
mod packages;
mod setup;
#[path = "../../portwatch/build/toolchain.rs"]
#[allow(dead_code, reason = "the build script uses the rest of the module")]
mod toolchain;
mod versions;
mod vm;

/// Set-up, build, run and test of portwatch
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building needs, if it is missing
    Setup {
        /// The architecture to build for
        #[arg(long, value_name = "ARCH", default_value_t = Arch::native(), value_enum)]
        arch: Arch,
    },
    /// Set up and build the release binary
    Build {
        /// The architecture to build for. For another than this machine's, the binary needs no
        /// libraries
        #[arg(long, value_name = "ARCH", default_value_t = Arch::native(), value_enum)]
        arch: Arch,
    },
    /// Set up, build, and run the agent in the foreground
    Run {
        /// Options for `portwatch run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Set up and run every test; the live tests use this machine's kernel
    Test {
        /// Run them while another process makes this many binds a second fail, in a separate
        /// network namespace
        #[arg(long, value_name = "RATE", num_args = 0..=1, default_missing_value = "2000")]
        neighbour: Option<u32>,
        /// Options for `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Check the spelling, and the licences and sources of the dependencies
    Lint {
        /// Skip the checks, with a message, if the programs that they need cannot be fetched
        #[arg(long)]
        where_available: bool,
    },
    /// Check the dependencies for known vulnerabilities; fetches the advisory database
    Advisories,
    /// Build the Debian package
    Deb(deb::Args),
    /// Build the files of a release: packages, tarball, image, system extension
    Dist(dist::Args),
    /// Run the live tests on stock Debian kernels under QEMU
    Vm(vm::Args),
    /// Run the benchmarks
    Bench,
    /// Read randomly changed events as captures, for some time
    Fuzz {
        /// How long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Make each attack on the agent repeatedly, and measure the delay of other users' events
    Attacks {
        /// How many times
        #[arg(long, default_value_t = 20)]
        runs: u32,
    },
    /// Make a thousand binds a second fail, with process and namespace churn, for some time
    Soak {
        /// How long
        #[arg(long, default_value_t = 1_800)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run_task(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_task(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Setup { arch } if arch.is_native() => setup::for_everybody(),
        Task::Setup { arch } => Target::prepare(arch).map(|_| ()),
        Task::Build { arch } if arch.is_native() => build().map(|_| ()),
        Task::Build { arch } => {
            println!("{}", build_static(arch)?.display());
            Ok(())
        }
        Task::Run { args } => run(args),
        Task::Test { neighbour, args } => test(neighbour, args),
        Task::Lint { where_available } => lint::run(where_available),
        Task::Advisories => lint::advisories(),
        Task::Deb(args) => deb::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Fuzz { seconds } => checked(
            cargo()
                .args(["test", "--release", "--package", "portwatch-tests", "--test", "fuzz"])
                .env("PORTWATCH_FUZZ_SECONDS", seconds.to_string()),
        ),
        Task::Attacks { runs } => {
            let binary = build()?;
            checked(
                cargo()
                    .args(["test", "--package", "portwatch-tests", "--test", "live", "fairness::"])
                    .env("PORTWATCH_RUNS", runs.to_string())
                    .env("PORTWATCH_BIN", binary),
            )
        }
        Task::Soak { seconds } => {
            setup::for_testing()?;
            let binary = build()?;
            checked(
                cargo()
                    .args(["test", "--package", "portwatch-tests", "--test", "soak"])
                    .env("PORTWATCH_SOAK_SECONDS", seconds.to_string())
                    .env("PORTWATCH_BIN", binary),
            )
        }
        Task::Bench => {
            setup::for_benchmarks()?;
            let binary = build()?;
            checked(
                cargo()
                    .args(["bench", "--package", "portwatch-tests"])
                    .env("PORTWATCH_BIN", binary),
            )
        }
    }
}

/// Builds the release binary and returns its path.
fn build() -> anyhow::Result<PathBuf> {
    setup::for_building()?;
    checked(cargo().args(["build", "--release", "--package", "portwatch"]))?;
    Ok(root().join("target/release/portwatch"))
}

/// Builds the binary that is published for an architecture, without dynamic libraries and symbols,
/// and returns its path.
fn build_static(arch: Arch) -> anyhow::Result<PathBuf> {
    setup::for_building()?;
    let target = Target::prepare(arch)?;
    checked(target.cargo(&["build", "--release", "--locked"]).args([
        "--package",
        "portwatch",
        "--config",
        "profile.release.strip=true",
    ]))?;
    Ok(target.programs("release").join("portwatch"))
}

/// Replaces this process by the agent, so that signals and the exit code are the agent's.
fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the agent needs root to watch binds\nhint: sudo -E cargo xtask run, or build with cargo \
         xtask build and run target/release/portwatch with the capabilities that portwatch doctor \
         names"
    );
    let binary = build()?;
    // `cargo xtask run -- --format json` and `cargo xtask run --format json`.
    let args = args.into_iter().skip_while(|argument| argument == "--");
    let error = Command::new(&binary).arg("run").args(args).exec();
    Err(error).with_context(|| format!("failed to start {}", binary.display()))
}

fn test(neighbour: Option<u32>, args: Vec<OsString>) -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the live tests attach programs and make network namespaces\nhint: run them as root"
    );
    setup::for_testing()?;
    // The agent under test is the one that users run.
    let binary = build()?;
    let args: Vec<_> = args.into_iter().skip_while(|argument| argument == "--").collect();
    let _neighbour = neighbour.map(Neighbour::start).transpose()?;
    checked(cargo().args(["test", "--workspace"]).args(args).env("PORTWATCH_BIN", binary))
}

/// A process whose binds fail, in a namespace of its own (tests/src/bin/neighbour.rs).
struct Neighbour(Child);

impl Neighbour {
    fn start(rate: u32) -> anyhow::Result<Self> {
        checked(cargo().args(["build", "--package", "portwatch-tests", "--bin", "neighbour"]))?;
        let program = root().join("target/debug/neighbour");
        // It exits when this process's end of the pipe is closed for any reason.
        let child = Command::new(&program)
            .arg(rate.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Self(child))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

/// The cargo that runs this, in the workspace's directory.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The workspace's directory.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Runs a command with its output on the terminal, and returns its failure.
fn checked(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("failed to start {name}"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(())
}

/// A command's output, shown only if it fails.
fn quietly(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes a directory that is empty.
fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
