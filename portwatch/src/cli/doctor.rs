//! `portwatch doctor`: what this kernel and these permissions allow.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use serde::Serialize;
use strum::VariantArray as _;

use super::{
    error::{Failure, SystemError, ended},
    hooks::Hooks,
    streams,
};
use crate::{
    enrich::{
        host::Host,
        survey::{Source, State, survey},
    },
    kernel::{
        KernelError,
        attach::{self, Follow, Wanted, Whose},
        features::{self, Capability, Features, KernelTypes},
        files::KernelFiles,
        plan::{Choice, plan},
        sets::{FOLLOW, HookSet},
    },
    text::sanitize::printable,
};

/// Options of `doctor`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hooks: Hooks,
}

const EXAMPLES: &str = "\
Examples:
  sudo portwatch doctor
      which hooks can be attached here, what they cost, what they cannot see, and
      which evidence is missing in events, and why
  portwatch doctor --json | jq .missing_capabilities
      the capabilities that this user lacks

Exit codes: 0 portwatch run would work, 4 only capabilities are missing, 1 the
kernel lacks a feature.";

/// Whether something can be used, and why not.
#[derive(Debug, Serialize)]
enum Answer {
    #[serde(rename = "Ok")]
    Yes(()),
    #[serde(rename = "Err")]
    No(String),
}

impl Answer {
    fn of<T, E: std::error::Error>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Yes(()),
            Err(error) => Self::No(chain(error)),
        }
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self::No("not tested".to_owned())
    }
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    kernel: String,
    btf: Answer,
    lockdown: Option<String>,
    cgroup2: Option<String>,
    capabilities: Vec<Capability>,
    missing_capabilities: Vec<&'static str>,
    unnamed_without: Vec<&'static str>,
    /// Each hook set, by its name.
    #[serde(flatten)]
    sets: BTreeMap<&'static str, Answer>,
    hooks: Option<&'static str>,
    because: Option<String>,
    attached: Vec<&'static str>,
    cost: Option<&'static str>,
    not_seen: Vec<String>,
    sources: Vec<Source>,
    problem: Option<String>,
}

/// Probes the kernel, attaches the hooks for a moment, probes the sources, and prints the
/// report.
///
/// Exit code 0 if the agent could run, 4 if only permissions are missing, 1 otherwise.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (report, code) = examine(&args.hooks);
    let text = match args.json {
        true => serde_json::to_string(&report).map_err(SystemError::at("write JSON"))? + "\n",
        false => text(&report),
    };
    ended(code, streams::result(&text))
}

fn examine(hooks: &Hooks) -> (Report, u8) {
    let types = KernelTypes::read(&hooks.btf);
    let mut report = Report {
        kernel: features::release(),
        btf: Answer::of(&types),
        capabilities: features::capabilities(),
        missing_capabilities: features::missing_capabilities(),
        sets: sets(|_| Answer::default()),
        sources: survey(&Host::current()),
        ..Report::default()
    };
    match types.and_then(|mut types| probe(&mut types, hooks.choice, &mut report)) {
        Ok(()) => (report, 0),
        Err(error) => {
            report.problem = Some(chain(&error));
            let code = if report.missing_capabilities.is_empty() { 1 } else { 4 };
            (report, code)
        }
    }
}

fn probe(types: &mut KernelTypes, hooks: Choice, report: &mut Report) -> Result<(), KernelError> {
    let features = Features::probe(types, None);
    report.lockdown.clone_from(&features.lockdown);
    report.cgroup2 = features.cgroup2.as_ref().map(|path| path.display().to_string());
    report.unnamed_without.clone_from(&features.unnamed_without);
    report.sets = sets(|set| Answer::of(&set.usable(&features)));
    let mut plan = plan(&features, hooks)?;
    plan.probes.extend(FOLLOW);
    report.hooks = Some(plan.set.into());
    report.because = Some(match (&plan.because[..], hooks) {
        ([], Choice::Auto) => format!("{} can be hooked", plan.set.spec().hooks),
        ([], Choice::Only(_)) => "requested with --hooks or PORTWATCH_HOOKS".to_owned(),
        (refused, _) => {
            let each = refused.iter();
            let each =
                each.map(|(set, why)| format!("{} cannot be hooked: {why}", set.spec().hooks));
            each.collect::<Vec<_>>().join("; ")
        }
    });
    report.cost = Some(plan.cost);
    report.sources.push(open_files(types));
    let attached = attach::attach(
        &plan,
        types,
        Whose::Everybodys,
        Wanted { follow: Follow::Yes, ..Wanted::ALL },
    )?;
    report.attached = attached.probes.iter().map(|probe| probe.program).collect();
    report.not_seen = plan.set.spec().misses.iter().map(|&miss| miss.to_owned()).collect();
    report.not_seen.extend(attached.misses);
    Ok(())
}

fn sets(answer: impl Fn(HookSet) -> Answer) -> BTreeMap<&'static str, Answer> {
    HookSet::VARIANTS.iter().map(|&set| (set.into(), answer(set))).collect()
}

/// Probes the kernel's own search of open files.
fn open_files(types: &KernelTypes) -> Source {
    let found = match KernelFiles::open(types) {
        Ok(_) => (State::Ready, "the kernel searches all tables of open files".to_owned()),
        Err(error) => (State::Limited, format!("searches /proc instead: {}", chain(&error))),
    };
    Source::new(
        "iter/task_file",
        "holders that neither the owner record nor the cgroup finds",
        found,
    )
}

fn chain(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(error.to_string().lines().next().unwrap_or_default());
        source = error.source();
    }
    text
}

/// Returns one line for each fact.
fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut row = |label: &str, text: &str| {
        let _ = writeln!(out, "{label:<16}{}", printable(text));
    };
    let answer = |answer: &Answer| match answer {
        Answer::Yes(()) => "yes".to_owned(),
        Answer::No(why) => format!("no: {why}"),
    };
    row("kernel", &report.kernel);
    row("BTF", &answer(&report.btf));
    row("lockdown", report.lockdown.as_deref().unwrap_or("not readable, or not built in"));
    row("cgroup2", report.cgroup2.as_deref().unwrap_or("not mounted"));
    let names = |has: bool| -> String {
        let those = report.capabilities.iter().filter(|capability| capability.has == has);
        let names: Vec<_> = those.map(|capability| capability.name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    row("granted", &names(true));
    row("missing", &names(false));
    for lacked in report.capabilities.iter().filter(|capability| !capability.has) {
        row("", &format!("without {}: {}", lacked.name, lacked.without));
    }
    for (set, usable) in &report.sets {
        row(set, &answer(usable));
    }
    row("hooks", report.hooks.unwrap_or("no hook set can be used"));
    if let Some(because) = &report.because {
        row("", because);
    }
    if let Some(cost) = report.cost {
        row("cost", cost);
        row("attached", &report.attached.join(", "));
    }
    for miss in &report.not_seen {
        row("not seen", miss);
    }
    for Source { name, state, detail, gives } in &report.sources {
        row(name, &format!("{state}: {detail}"));
        if *state == State::Limited {
            row("", &format!("without it: {gives}"));
        }
    }
    if let Some(problem) = &report.problem {
        row("problem", problem);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &'static str, state: State, detail: &str) -> Source {
        Source::new(name, "the names of things", (state, detail.to_owned()))
    }

    fn report() -> Report {
        Report {
            kernel: "6.12.0".to_owned(),
            btf: Answer::Yes(()),
            lockdown: Some("none".to_owned()),
            cgroup2: Some("/sys/fs/cgroup".to_owned()),
            capabilities: vec![
                Capability { name: "CAP_BPF", has: true, without: "nothing can be attached" },
                Capability { name: "CAP_SYS_PTRACE", has: false, without: "no names of others" },
            ],
            missing_capabilities: vec![],
            unnamed_without: vec!["CAP_SYS_PTRACE"],
            sets: sets(|set| match set {
                HookSet::Tracepoint => Answer::Yes(()),
                _ => Answer::No("Operation not permitted".to_owned()),
            }),
            hooks: Some("tracepoint"),
            because: Some("exits of kernel functions cannot be hooked: EPERM".to_owned()),
            attached: vec!["pw_sys_exit", "pw_bind4"],
            cost: Some("about 20 ns"),
            not_seen: vec!["binds through io_uring".to_owned()],
            sources: vec![
                source("sock_diag", State::Ready, "all sockets are listed"),
                source("docker", State::Limited, "/run/docker.sock: \u{1b}[2Jdenied\u{202e}"),
                source("kubelet", State::Absent, "there is no /var/log/pods"),
            ],
            problem: None,
        }
    }

    #[test]
    fn a_row_for_each_fact() {
        insta::assert_snapshot!(text(&report()));
    }

    #[test]
    fn for_machines() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&report()).unwrap());
    }
}
