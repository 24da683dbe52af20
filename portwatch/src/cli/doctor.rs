//! `portwatch doctor`: what this kernel and these rights allow.

use std::{path::Path, process::ExitCode};

use serde::Serialize;

use crate::kernel::{
    KernelError,
    attach::{self, SourceLimit, Whose},
    features::{self, Features, KernelTypes},
    plan::{Plan, plan},
};

/// Options of `doctor`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  sudo portwatch doctor
      which hooks can be attached here, what they cost, what they cannot see
  portwatch doctor --json | jq .missing_capabilities
      the rights that this user lacks

Exit codes: 0 portwatch run would work, 4 only rights are missing, 1 the kernel
lacks something.";

/// What was found.
#[derive(Serialize)]
struct Report {
    kernel: String,
    btf: Result<(), String>,
    lockdown: Option<String>,
    cgroup2: Option<String>,
    missing_capabilities: Vec<&'static str>,
    unnamed_without: Vec<&'static str>,
    fexit: Result<(), String>,
    hooks: Option<&'static str>,
    attached: Vec<&'static str>,
    cost: Option<&'static str>,
    not_seen: Vec<String>,
    problem: Option<String>,
}

/// Probes, attaches for a moment, and tells.
///
/// Exit code 0 where the agent could run, 4 where only rights are missing, 1
/// otherwise.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (report, code) = examine();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(ExitCode::from(code))
}

fn examine() -> (Report, u8) {
    let types = KernelTypes::read(Path::new(features::VMLINUX));
    let mut report = Report {
        kernel: features::release(),
        btf: types.as_ref().map(|_| ()).map_err(chain),
        lockdown: None,
        cgroup2: None,
        missing_capabilities: features::missing_capabilities(),
        unnamed_without: Vec::new(),
        fexit: Err("not tried".to_owned()),
        hooks: None,
        attached: Vec::new(),
        cost: None,
        not_seen: Vec::new(),
        problem: None,
    };
    match types.and_then(|types| probe(&types, &mut report)) {
        Ok(()) => (report, 0),
        Err(error) => {
            report.problem = Some(chain(&error));
            let code = if report.missing_capabilities.is_empty() { 1 } else { 4 };
            (report, code)
        }
    }
}

fn probe(types: &KernelTypes, report: &mut Report) -> Result<(), KernelError> {
    let features = Features::probe(types);
    report.lockdown.clone_from(&features.lockdown);
    report.cgroup2 = features.cgroup2.as_ref().map(|path| path.display().to_string());
    report.unnamed_without.clone_from(&features.unnamed_without);
    report.fexit.clone_from(&features.fexit);
    let Plan { set, .. } = plan(&features)?;
    report.hooks = Some(set.name());
    report.cost = Some(set.cost());
    let attached =
        attach::attach(&plan(&features)?, types, Whose::Everybodys, SourceLimit::Counted)?;
    report.attached = attached.probes.iter().map(|probe| probe.program).collect();
    report.not_seen = set.misses().iter().map(|&miss| miss.to_owned()).collect();
    report.not_seen.extend(attached.misses);
    Ok(())
}

fn chain(error: &KernelError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(error.to_string().lines().next().unwrap_or_default());
        source = error.source();
    }
    text
}

fn print(report: &Report) {
    let row = |label: &str, text: &str| println!("{label:<14}{text}");
    let or_none = |list: &[&str]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let answer = |result: &Result<(), String>| match result {
        Ok(()) => "yes".to_owned(),
        Err(why) => format!("no: {why}"),
    };
    row("kernel", &report.kernel);
    row("BTF", &answer(&report.btf));
    row("lockdown", report.lockdown.as_deref().unwrap_or("not readable or not built in"));
    row("cgroup2", report.cgroup2.as_deref().unwrap_or("not mounted"));
    row("rights lacked", &or_none(&report.missing_capabilities));
    if !report.unnamed_without.is_empty() {
        row(
            "",
            &format!(
                "other users' holders stay unnamed without {}",
                report.unnamed_without.join(", ")
            ),
        );
    }
    row("fexit", &answer(&report.fexit));
    row("hooks", report.hooks.unwrap_or("none can be used"));
    if let Some(cost) = report.cost {
        row("cost", cost);
        row("attached", &report.attached.join(", "));
    }
    for miss in &report.not_seen {
        row("not seen", miss);
    }
    if let Some(problem) = &report.problem {
        row("problem", problem);
    }
}
