//! Runs the helper program: as a holder, or as a process that tries to take a held port. Both
//! stay until the test drops them, unless they are to exit.

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use rustix::process::Signal;

use crate::{
    began,
    cgroup::Cgroup,
    netns::Netns,
    op::{Op, Outcome, Stage},
    patience,
    process::{Process, code},
    programs::{self, Alias},
};

/// The errno of the failures that portwatch reports.
pub const EADDRINUSE: i32 = 98;

/// A helper process that is not started yet.
pub struct Helper<'a> {
    netns: &'a Netns,
    cgroup: Option<&'a Cgroup>,
    program: PathBuf,
    first_argument: String,
    prelude: Vec<Op>,
}

/// A process that has tried its operations.
pub struct Attempt {
    /// Its process id.
    pub pid: u32,
    /// Its arguments, its name first.
    pub cmdline: Vec<String>,
    /// The result of each socket.
    pub outcomes: Vec<Outcome>,
    /// Its exit code, if it has exited.
    pub code: Option<i32>,
    /// Its process ends when this is dropped.
    _process: Process,
}

/// A process that stays until this is dropped.
pub struct Holder {
    process: Process,
    outcomes: usize,
}

impl<'a> Helper<'a> {
    /// One that will run in `netns`.
    #[must_use]
    pub fn new(netns: &'a Netns) -> Self {
        began::now();
        let program = programs::binder();
        let first_argument = program.display().to_string();
        Self { netns, cgroup: None, program, first_argument, prelude: Vec::new() }
    }

    /// Where it will run.
    #[must_use]
    pub fn netns(&self) -> &'a Netns {
        self.netns
    }

    /// In this control group.
    #[must_use]
    pub fn within(self, cgroup: &'a Cgroup) -> Self {
        Self { cgroup: Some(cgroup), ..self }
    }

    /// As another program.
    #[must_use]
    pub fn run_as(self, alias: &Alias) -> Self {
        let first_argument = alias.path.display().to_string();
        Self { program: alias.path.clone(), first_argument, ..self }
    }

    /// With another first argument than the program's path.
    #[must_use]
    pub fn called(self, first_argument: &str) -> Self {
        Self { first_argument: first_argument.to_owned(), ..self }
    }

    /// As this user.
    #[must_use]
    pub fn by(mut self, uid: u32) -> Self {
        self.prelude.push(Op::Uid(uid));
        self
    }

    /// With these in its command line.
    #[must_use]
    pub fn noting(mut self, notes: impl IntoIterator<Item = Op>) -> Self {
        self.prelude.extend(notes);
        self
    }

    /// On a terminal of its own.
    #[must_use]
    pub fn on_terminal(mut self) -> Self {
        self.prelude.push(Op::Terminal);
        self
    }

    /// Silent, and exits as soon as a call fails.
    #[must_use]
    pub fn vanishing(mut self) -> Self {
        self.prelude.push(Op::Vanish);
        self
    }

    /// Runs `ops` and exits, whatever their results.
    #[must_use]
    pub fn runs<I: Into<Op>>(self, ops: impl IntoIterator<Item = I>) -> Attempt {
        let (mut process, cmdline) = self.start(ops.into_iter().map(Into::into).collect());
        let status = process.wait_or_panic(patience());
        let stdout = process.stdout.wait_for_end(patience());
        let outcomes = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let stderr = process.stderr.wait_for_end(patience());
        assert_eq!(stderr, "", "the helper failed");
        Attempt {
            pid: process.pid(),
            cmdline,
            outcomes,
            code: Some(code(status)),
            _process: process,
        }
    }

    /// Fails `op` with EADDRINUSE, and stays so that it can be examined.
    pub fn is_refused(self, op: impl Into<Op>) -> Attempt {
        let (process, cmdline) = self.start(vec![op.into(), Op::Hold]);
        let outcome = outcome_of(&process, 0);
        assert_eq!(outcome.errno, EADDRINUSE, "{outcome:?}");
        let pid = process.pid();
        Attempt { pid, cmdline, outcomes: vec![outcome], code: None, _process: process }
    }

    /// Runs all of `ops` successfully and exits.
    pub fn succeeds<I: Into<Op>>(self, ops: impl IntoIterator<Item = I>) -> Attempt {
        let attempt = self.runs(ops);
        assert_eq!(attempt.code, Some(0), "{attempt:?}");
        attempt
    }

    /// Runs all of `ops` successfully and stays.
    #[must_use]
    pub fn holds<I: Into<Op>>(self, ops: impl IntoIterator<Item = I>) -> Holder {
        let mut ops: Vec<Op> = ops.into_iter().map(Into::into).collect();
        let sockets = ops.len();
        ops.push(Op::Hold);
        let (process, _) = self.start(ops);
        let mut holder = Holder { process, outcomes: 0 };
        for _ in 0..sockets {
            let outcome = holder.next_outcome();
            assert_eq!(outcome.stage, Stage::Done, "{outcome:?}");
        }
        holder
    }

    fn start(self, ops: Vec<Op>) -> (Process, Vec<String>) {
        let mut command = Command::new(&self.program);
        let mut cmdline = vec![self.first_argument.clone()];
        cmdline.extend(self.prelude.iter().chain(&ops).map(ToString::to_string));
        command.arg0(&self.first_argument).args(&cmdline[1..]);
        self.netns.confine(&mut command);
        if let Some(cgroup) = self.cgroup {
            cgroup.confine(&mut command);
        }
        (Process::start(&mut command, Signal::KILL).unwrap(), cmdline)
    }
}

impl Attempt {
    /// Returns the result of the last socket.
    #[must_use]
    pub fn last(&self) -> &Outcome {
        self.outcomes.last().expect("the helper said what came of it")
    }
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: exit code {:?}, {:?}", self.cmdline.join(" "), self.code, self.outcomes)
    }
}

impl Holder {
    /// The id of the process that has it: the helper's, or its child's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.outcomes.checked_sub(1).map_or(self.process.pid(), |last| self.outcome(last).pid)
    }

    /// Returns the result of socket `number`.
    #[must_use]
    pub fn outcome(&self, number: usize) -> Outcome {
        outcome_of(&self.process, number)
    }

    /// Waits for its end, and reaps it.
    pub fn wait(&mut self) {
        self.process.wait_or_panic(patience());
    }

    /// Runs one more operation, whatever its result.
    pub fn does(&mut self, op: impl Into<Op>) -> Outcome {
        self.process.tell(&op.into().to_string());
        self.next_outcome()
    }

    /// Runs an operation without an answer.
    pub fn tells(&mut self, op: impl Into<Op>) {
        self.process.tell(&op.into().to_string());
    }

    fn next_outcome(&mut self) -> Outcome {
        let outcome = self.outcome(self.outcomes);
        self.outcomes += 1;
        outcome
    }
}

fn outcome_of(process: &Process, number: usize) -> Outcome {
    let answer = process.stdout.wait_until(patience(), |lines| {
        lines.get(number).map(|line| serde_json::from_str(&line.text).unwrap())
    });
    answer.unwrap_or_else(|why| panic!("no answer ({why:?})\n{}", process.said()))
}
