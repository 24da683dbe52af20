//! One port: look, plan, ask, act, wait, and look again, until it is free or nothing more may be
//! done.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::getuid;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};

use super::{Args, Form, NobodyToAsk, words};
use crate::{
    cli::{
        error::{Failure, SystemError, unwritten},
        streams::Stream,
    },
    diagnose::words as said,
    enrich::{Enricher, ancestry, host::Host, this_process},
    event::{
        self,
        action::{ACTION, Action, Done, Result as Came},
    },
    evidence::{Netns, Process, TimeWait},
    explain::{Explanation, Question, explain},
    free::{
        plan::{Consent, Plan, Proposal, Step, holder, plan},
        proof::End,
    },
    redact::Redaction,
    sinks::{
        self,
        human::{coloured, explanations},
    },
};

mod doing;

/// Time limit for collecting the evidence of one port.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many holders of one port are stopped one after the other.
const ROUNDS: usize = 8;

/// Takes ports back, within one time limit for all of them.
pub struct Taking<'a> {
    args: &'a Args,
    enricher: Enricher,
    host: event::Host,
    netns: Netns,
    /// This process.
    own: Process,
    runtime: Runtime,
    interrupt: Signal,
    deadline: Instant,
}

/// How the work on a port ended.
struct Ended {
    result: Came,
    why: String,
    /// Whether a right is missing.
    denied: bool,
}

impl Ended {
    fn new(result: Came, why: impl Into<String>) -> Self {
        Self { result, why: why.into(), denied: false }
    }
}

/// What was done so far.
#[derive(Default)]
struct Log {
    steps: Vec<Done>,
    time_wait: TimeWait,
    /// The processes that had a socket on the port before the first step.
    before: BTreeSet<u32>,
}

impl<'a> Taking<'a> {
    /// Prepares for it.
    pub fn new(
        args: &'a Args,
        enricher: Enricher,
        host: event::Host,
        netns: Netns,
    ) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SystemError::at("start the runtime"))?;
        let interrupt = {
            let _inside = runtime.enter();
            signal(SignalKind::interrupt()).map_err(SystemError::at("watch for SIGINT"))?
        };
        let deadline = Instant::now() + args.timeout.min(Duration::from_secs(u32::MAX.into()));
        let own = this_process(&Host::current()).unwrap_or_default();
        Ok(Self { args, enricher, host, netns, own, runtime, interrupt, deadline })
    }

    /// Waits for nothing that was interrupted: a read from the terminal, a manager's answer.
    pub fn leave(self) {
        self.runtime.shutdown_background();
    }

    /// Takes one port back. Returns the record of it, and whether a right is missing.
    pub fn take(&mut self, question: Question) -> Result<(Action, bool), Failure> {
        let (begin, time) = (Instant::now(), Timestamp::now());
        let first = self.look(&question);
        let mut log = Log { before: holders(&first), ..Log::default() };
        let mut now = first.clone();
        let mut after = None;
        let ended = loop {
            let proposal = match self.proposed(&now, &log)? {
                Next::End(ended) => break ended,
                Next::Wait => None,
                Next::Act(proposal) => Some(proposal),
            };
            let proof = match proposal {
                Some(proposal) => self.act(&question, &proposal, &mut log)?,
                None => self.prove(&question, &BTreeSet::new(), self.left(), &[], &mut log)?,
            };
            match proof {
                Ok(End::Free) if log.steps.is_empty() => break Ended::new(Came::Waited, ""),
                Ok(End::Free) => break Ended::new(Came::Freed, ""),
                Ok(end) => {
                    now = self.look(&question);
                    after.clone_from(&now.diagnosis);
                    if let Some(ended) = self.in_the_end(&now, end, &log) {
                        break ended;
                    }
                }
                Err(ended) => {
                    let now = self.look(&question);
                    // What blocked the bind has ended by itself, which is why the step failed.
                    if ended.result == Came::Failed && self.plan(&now) == Plan::Free {
                        break Ended::new(Came::Waited, "");
                    }
                    after = now.diagnosis;
                    break ended;
                }
            }
        };
        // What blocked between two rounds blocks no longer.
        let after = after.filter(|_| !ended.result.is_free());
        let mut action = Action {
            schema: ACTION.to_owned(),
            time,
            host: self.host.clone(),
            uid: getuid().as_raw(),
            user: self.own.user.clone(),
            session_user: self.own.session_user.clone(),
            netns: self.netns.clone(),
            protocol: question.protocol,
            address: question.address,
            device: question.device,
            port: question.port,
            reuseaddr: question.reuseaddr,
            result: ended.result,
            why: ended.why,
            steps: log.steps,
            took_ms: millis(begin.elapsed()),
            before: first.diagnosis,
            connections: first.connections,
            after,
            time_wait: log.time_wait,
        };
        // A manager's command may have printed anything.
        Redaction::name(&mut action.why);
        action.steps.iter_mut().for_each(|step| Redaction::name(&mut step.what));
        Ok((action, ended.denied))
    }

    fn look(&mut self, question: &Question) -> Explanation {
        explain(&mut self.enricher, &self.host, question.clone(), &self.netns, PATIENCE)
    }

    fn plan(&self, now: &Explanation) -> Plan {
        plan(now, &self.own, self.args.kill_after)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Decides what is next by what is on the port now, and asks if a person is to decide.
    fn proposed(&mut self, now: &Explanation, log: &Log) -> Result<Next, Failure> {
        let planned = self.plan(now);
        if planned != Plan::Free {
            self.show(now, &planned)?;
        }
        let proposal = match planned {
            Plan::Free if log.steps.is_empty() => {
                return Ok(Next::End(Ended::new(Came::AlreadyFree, "nothing blocks a bind")));
            }
            Plan::Free => return Ok(Next::End(Ended::new(Came::Freed, ""))),
            Plan::Wait if self.args.dry_run => {
                let why = "nothing is to be stopped: what blocks the bind ends by itself";
                return Ok(Next::End(Ended::new(Came::Planned, why)));
            }
            Plan::Wait => return Ok(Next::Wait),
            Plan::Refuse(refusal) => {
                let run = refusal.command.map(|command| format!("; suggested: {command}"));
                let why = format!("{}{}", refusal.why, run.unwrap_or_default());
                let denied = refusal.denied;
                return Ok(Next::End(Ended { denied, ..Ended::new(Came::Refused, why) }));
            }
            Plan::Act(proposal) => proposal,
        };
        if self.args.dry_run {
            let obstacles = proposal.obstacles.iter().map(|obstacle| format!("; {obstacle}"));
            let obstacles: String = obstacles.collect();
            let why = format!("the plan is {}{obstacles}", commands(&proposal.steps));
            return Ok(Next::End(Ended::new(Came::Planned, why)));
        }
        if self.args.yes {
            let is_enough = proposal.consent == Consent::Likely || self.args.even_if_used;
            return Ok(if is_enough {
                Next::Act(proposal)
            } else {
                Next::End(unsafe_to(&proposal))
            });
        }
        Ok(match self.asks(&proposal)? {
            Some(true) => Next::Act(proposal),
            Some(false) => Next::End(Ended::new(Came::Declined, "")),
            None => Next::End(Ended::new(Came::Interrupted, "nothing was done")),
        })
    }

    /// Shows the evidence and the plan, where a person reads them.
    fn show(&self, now: &Explanation, planned: &Plan) -> Result<(), Failure> {
        let mut stdout = Stream::Stdout;
        match self.args.format {
            Form::Human => {}
            Form::Json => return Ok(()),
            Form::Markdown => {
                let answers = std::slice::from_ref(now);
                return sinks::markdown::explanations(answers, &mut stdout).map_err(unwritten);
            }
        }
        let colour = stdout.colour();
        let told = explanations(std::slice::from_ref(now), stdout, colour, &[]);
        let told = told.and_then(|()| match planned {
            Plan::Act(proposal) => {
                let text = words::plan(proposal);
                stdout.write_all(coloured(text, colour).as_bytes())
            }
            _ => Ok(()),
        });
        told.map_err(unwritten)
    }

    /// Asks; `None` if that was interrupted.
    fn asks(&mut self, proposal: &Proposal) -> Result<Option<bool>, Failure> {
        use std::io::IsTerminal as _;
        if self.args.format != Form::Human || !rustix::stdio::stdin().is_terminal() {
            return Err(NobodyToAsk.into());
        }
        let question = words::question(proposal);
        let mut stderr = Stream::Stderr;
        stderr.write_all(question.as_bytes()).map_err(SystemError::at("ask"))?;
        let interrupt = &mut self.interrupt;
        let answer = self.runtime.block_on(async {
            let read = spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().read_line(&mut line).map(|_| line)
            });
            tokio::select! {
                line = read => Some(line.map_err(io::Error::other).flatten()),
                _ = interrupt.recv() => None,
            }
        });
        let line = answer.transpose().map_err(SystemError::at("read the answer"))?;
        Ok(line.map(|line| matches!(line.trim(), "y" | "Y" | "yes")))
    }

    /// Decides by what is on the port after the steps whether that is the end; `None` for
    /// another round.
    fn in_the_end(&self, now: &Explanation, end: End, log: &Log) -> Option<Ended> {
        if self.plan(now) == Plan::Free {
            return Some(Ended::new(Came::Freed, ""));
        }
        let diagnosis = now.diagnosis.as_ref()?;
        let out_of_time = self.left().is_zero();
        match holder(now, diagnosis) {
            Some(holder) if !log.before.contains(&holder.pid) => {
                Some(Ended::new(Came::Taken, taken_by(holder)))
            }
            // Another one that was there from the beginning.
            Some(_) if end == End::Another && !out_of_time && log.steps.len() < ROUNDS => None,
            _ => Some(Ended::new(Came::TimedOut, diagnosis.summary.clone())),
        }
    }
}

/// What is next.
enum Next {
    End(Ended),
    Wait,
    Act(Box<Proposal>),
}

fn holders(answer: &Explanation) -> BTreeSet<u32> {
    let all = answer.sockets.iter().flat_map(|socket| &socket.holders);
    all.map(|process| process.pid).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn commands(steps: &[Step]) -> String {
    let commands: Vec<_> = steps.iter().map(|step| step.command.as_str()).collect();
    commands.join(", then ")
}

/// Why `--yes` alone is not enough, and what a person could run.
fn unsafe_to(proposal: &Proposal) -> Ended {
    let contra = proposal.judgement.as_ref().map(|judgement| judgement.contra.join("; "));
    let contra = contra.filter(|contra| !contra.is_empty());
    let contra = contra.unwrap_or_else(|| "nothing shows that it is safe to stop".to_owned());
    let why = format!(
        "{contra}; with --even-if-used this would run: {}",
        commands(proposal.steps.get(..1).unwrap_or_default())
    );
    Ended::new(Came::Refused, why)
}

/// Who has the port now, and who started it.
fn taken_by(holder: &Process) -> String {
    let who = said::process_and_owner(holder);
    let restarted = holder.supervisor.as_ref().map(|by| {
        let name = by.name.as_deref().unwrap_or("it");
        format!("; {} keeps {name} running", by.kind)
    });
    let parents = ancestry(&Host::current(), holder.ppid);
    let parents = match parents.as_slice() {
        [] => String::new(),
        parents => format!("; started by {}", parents.join(", child of ")),
    };
    format!("{who} has taken it meanwhile{}{parents}", restarted.unwrap_or_default())
}
