//! Supervisors: plain data for each, in a file of its own (docs/extending.md). systemd's units
//! and a shell's loops are not data: [`crate::enrich::supervisors`] finds them.

use serde::{Deserialize, Serialize};
use strum::VariantArray as _;

use crate::{redact::Cmdline, text::bounds::ELLIPSIS};

pub mod pm2;
mod runit;
mod s6;
mod supervisord;

/// A kind of supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum SupervisorKind {
    /// systemd, of the system or of a user.
    Systemd,
    /// supervisord.
    Supervisord,
    /// pm2.
    Pm2,
    /// runit's `runsv`.
    Runit,
    /// s6's `s6-supervise`.
    S6,
    /// A shell that runs a loop.
    Shell,
}

impl SupervisorKind {
    /// Returns the data of a program that keeps its own jobs running; `None` for systemd and
    /// shells.
    pub fn spec(self) -> Option<&'static Spec> {
        match self {
            Self::Systemd | Self::Shell => None,
            Self::Supervisord => Some(&supervisord::SUPERVISOR),
            Self::Pm2 => Some(&pm2::SUPERVISOR),
            Self::Runit => Some(&runit::SUPERVISOR),
            Self::S6 => Some(&s6::SUPERVISOR),
        }
    }
}

/// A program that keeps jobs running, and restarts those that end by themselves.
#[derive(Debug)]
pub struct Spec {
    /// Returns whether a process is one, by its name and its arguments.
    pub is: fn(&str, &Cmdline) -> bool,
    /// How it names a job.
    pub job: Job,
    /// The command that stops a job, up to the job's name: the program, and the arguments after
    /// it.
    pub stop: (&'static str, &'static str),
    /// The options that name its configuration, if its command accepts the first of them too
    /// and needs it.
    pub config: &'static [&'static str],
    /// The variable by which its command finds it, and how to read the value from its
    /// arguments, if it has no such option.
    pub home: Option<Home>,
    /// Whether each user has one, so that the command must always run as its user.
    pub per_user: bool,
}

/// A variable, and the function that reads its value from a daemon's arguments.
pub type Home = (&'static str, fn(&Cmdline) -> Option<String>);

/// The source of a supervisor's name for a job.
#[derive(Clone, Copy, Debug)]
pub enum Job {
    /// Variables that it sets in a job's environment; the function reads the name.
    Environment(fn(&Variables<'_>) -> Option<String>),
    /// The directory that the first argument names.
    Folder {
        /// Whether the command also accepts a name that is not a path.
        short: bool,
        /// The file in the directory that has the pid of the job.
        job: Option<&'static str>,
    },
}

/// Returns the value of a variable of a process's environment.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Returns whether a process's name, its program, or the script that Python runs is one of
/// `names`.
fn is_any(names: &[&str], comm: &str, argv: &Cmdline) -> bool {
    let program = base(argv.first().unwrap_or_default());
    let script = argv.iter().skip(1).find(|argument| !argument.starts_with('-'));
    let script = script.map(base).filter(|_| program.starts_with("python"));
    [comm, program].into_iter().chain(script).any(|name| names.contains(&name))
}

/// Returns the kind of a program that keeps others running.
pub fn of(comm: &str, argv: &Cmdline) -> Option<(SupervisorKind, &'static Spec)> {
    let mut all = SupervisorKind::VARIANTS.iter().filter_map(|&kind| Some((kind, kind.spec()?)));
    all.find(|(_, spec)| (spec.is)(comm, argv))
}

/// Returns the path that one of `options` names on a command line: `-c FILE`, `-cFILE`,
/// `--configuration FILE`, `--configuration=FILE`.
pub fn configuration<'a>(argv: &'a Cmdline, options: &[&str]) -> Option<&'a str> {
    let mut arguments = argv.iter().skip(1);
    let told = loop {
        let argument = arguments.next()?;
        if options.contains(&argument) {
            break arguments.next()?;
        }
        let attached = options.iter().find_map(|option| {
            let rest = argument.strip_prefix(option)?;
            if option.starts_with("--") { rest.strip_prefix('=') } else { Some(rest) }
        });
        if let Some(told) = attached.filter(|told| !told.is_empty()) {
            break told;
        }
    };
    (!told.ends_with(ELLIPSIS)).then_some(told)
}

/// Returns whether a name selects exactly one job: `all`, `GROUP:` and `GROUP:*` do not, nor
/// do options and pm2's `/PATTERN/`. A job may write into its own environment what its
/// supervisor would accept for another job.
fn is_one(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !name.is_empty() && name != "all" && !name.starts_with('-') && name.bytes().all(plain)
}

/// Returns the last part of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the kind of a process whose arguments are separated by bars.
    pub fn kind(comm: &str, line: &str) -> Option<SupervisorKind> {
        let argv = line.split('|').map(str::to_owned).collect();
        of(comm, &argv).map(|(kind, _)| kind)
    }

    #[test]
    fn others_are_none() {
        for (comm, line) in [
            ("python3", "python3|app.py|/usr/bin/supervisord"),
            ("vim", "vim|/usr/bin/supervisord"),
            ("java", "java"),
            ("", ""),
        ] {
            assert_eq!(kind(comm, line), None, "{comm} {line}");
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_read(comm: String, argv: Vec<String>) {
            let _ = of(&comm, &Cmdline::from(argv));
        }
    }
}
