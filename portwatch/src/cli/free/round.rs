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
        streams::{Stream, say},
        wait::progress::Progress,
    },
    diagnose::words as said,
    enrich::{Enricher, ancestry, host::Host, this_process},
    event::{
        self,
        action::{ACTION, Action, By, Done, Result as Came, Signalled},
    },
    evidence::{Netns, Process, TimeWait},
    explain::{Explanation, Question, explain},
    free::{
        act::{self, ActError},
        plan::{Consent, Plan, Proposal, Step, plan},
        proof::{End, Proof, until_free},
        signals::Target,
    },
    sinks::human::{coloured, explanations},
};

/// Time limit for collecting the evidence of one port.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many holders of one port are stopped one after the other.
const ROUNDS: usize = 8;
/// How long a step has until the next one deals with what it has left.
const BETWEEN: Duration = Duration::from_secs(2);
/// How long the port must stay free after a signal: systemd waits 100 ms before it restarts a
/// unit (RestartSec=), a shell's loop does not wait at all.
const SETTLES: Duration = Duration::from_millis(400);

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
                    if ended.result == Came::Failed && plan(&now, &self.own) == Plan::Free {
                        break Ended::new(Came::Waited, "");
                    }
                    after = now.diagnosis;
                    break ended;
                }
            }
        };
        let action = Action {
            schema: ACTION.to_owned(),
            time,
            host: self.host.clone(),
            uid: getuid().as_raw(),
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
        Ok((action, ended.denied))
    }

    fn look(&mut self, question: &Question) -> Explanation {
        explain(&mut self.enricher, &self.host, question.clone(), &self.netns, PATIENCE)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Decides what is next by what is on the port now, and asks if a person is to decide.
    fn proposed(&mut self, now: &Explanation, log: &Log) -> Result<Next, Failure> {
        let planned = plan(now, &self.own);
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
                let run = refusal.command.map(|command| format!("; to look further: {command}"));
                let why = format!("{}{}", refusal.why, run.unwrap_or_default());
                let denied = refusal.denied;
                return Ok(Next::End(Ended { denied, ..Ended::new(Came::Refused, why) }));
            }
            Plan::Act(proposal) => proposal,
        };
        if self.args.dry_run {
            let why = format!("the plan is {}", commands(&proposal.steps));
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
        if self.args.format != Form::Human {
            return Ok(());
        }
        let mut stdout = Stream::Stdout;
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

    /// Does the steps, as many as are needed, and waits after each.
    fn act(
        &mut self,
        question: &Question,
        proposal: &Proposal,
        log: &mut Log,
    ) -> Result<Result<End, Ended>, Failure> {
        let mut end = End::TimedOut;
        for (number, step) in proposal.steps.iter().enumerate() {
            let (is_first, is_last) = (number == 0, number + 1 == proposal.steps.len());
            let targets = match self.does(step, &proposal.inodes, log) {
                Ok(targets) => targets,
                Err(ended) if is_first => return Ok(Err(ended)),
                // What the first step has left has exited by itself, or is another now.
                Err(_) => Vec::new(),
            };
            let limit = if is_last { self.left() } else { self.left().min(BETWEEN) };
            end = match self.prove(question, &proposal.inodes, limit, &targets, log)? {
                Ok(end) => end,
                Err(ended) => return Ok(Err(ended)),
            };
            let exited = targets.iter().map(|target| (target.pid, target.has_exited()));
            let exited: Vec<_> = exited.collect();
            if let Some(done) = log.steps.last_mut() {
                for process in &mut done.signalled {
                    process.exited |= exited.contains(&(process.pid, true));
                }
            }
            if end != End::TimedOut || is_last {
                break;
            }
        }
        // A manager that was asked starts nothing again. After a signal somebody may.
        let by = log.steps.last().and_then(|done| done.by);
        if end == End::Free && matches!(by, Some(By::Signal | By::Command)) {
            return self.settles(question, log);
        }
        Ok(Ok(end))
    }

    /// Looks once more after a moment in which whoever restarts the holder has done so.
    fn settles(
        &mut self,
        question: &Question,
        log: &mut Log,
    ) -> Result<Result<End, Ended>, Failure> {
        let interrupt = &mut self.interrupt;
        let interrupted = self.runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(SETTLES) => false,
                _ = interrupt.recv() => true,
            }
        });
        if interrupted {
            let why = "interrupted after the port was free for a moment; the steps above were done";
            return Ok(Err(Ended::new(Came::Interrupted, why)));
        }
        let end = self.prove(question, &BTreeSet::new(), Duration::ZERO, &[], log)?;
        Ok(end.map(|end| if end == End::TimedOut { End::Another } else { end }))
    }

    /// Does one step, on a thread of its own: a manager may take its time, and Ctrl-C is
    /// answered meanwhile.
    fn does(
        &mut self,
        step: &Step,
        inodes: &BTreeSet<u64>,
        log: &mut Log,
    ) -> Result<Vec<Target>, Ended> {
        let begin = Instant::now();
        let (doing, inodes) = (step.clone(), inodes.clone());
        let (kills, deadline) = (self.args.kill_after.is_some(), self.deadline);
        let interrupt = &mut self.interrupt;
        let done = self.runtime.block_on(async {
            let act = spawn_blocking(move || act::carry_out(&doing, &inodes, kills, deadline));
            tokio::select! {
                done = act => Some(done),
                _ = interrupt.recv() => None,
            }
        });
        let mut record = Done {
            command: step.command.clone(),
            by: None,
            what: String::new(),
            signalled: Vec::new(),
            took_ms: millis(begin.elapsed()),
        };
        let ended = match done {
            Some(Ok(Ok(done))) => {
                record.by = Some(done.by);
                record.what = done.what;
                record.signalled = done.targets.iter().map(signalled).collect();
                log.steps.push(record);
                return Ok(done.targets);
            }
            Some(Ok(Err(error))) => failed(&error),
            Some(Err(error)) => Ended::new(Came::Failed, error.to_string()),
            None => Ended::new(
                Came::Interrupted,
                format!("interrupted during: {}; it may still be done", step.command),
            ),
        };
        record.what.clone_from(&ended.why);
        log.steps.push(record);
        Err(ended)
    }

    /// Waits until the port is free, for so long, and sends SIGKILL in between if asked to.
    fn prove(
        &mut self,
        question: &Question,
        inodes: &BTreeSet<u64>,
        limit: Duration,
        targets: &[Target],
        log: &mut Log,
    ) -> Result<Result<End, Ended>, Failure> {
        let host = Host::current();
        let mut progress = Progress::new(limit);
        let begin = Instant::now();
        let mut kill_after = self.args.kill_after.filter(|_| !targets.is_empty());
        let ended =
            loop {
                let left = limit.saturating_sub(begin.elapsed());
                let until_kill = kill_after.map(|after| after.saturating_sub(begin.elapsed()));
                let now = until_kill.map_or(left, |until| until.min(left));
                let interrupt = &mut self.interrupt;
                let proof = self.runtime.block_on(async {
                    let tell = |state: &_| progress.tell(state);
                    tokio::select! {
                        proof = until_free(&host, question, inodes, now, tell) => Some(proof),
                        _ = interrupt.recv() => None,
                    }
                });
                let Some(proof) = proof else {
                    let why = match log.steps.is_empty() {
                        true => "interrupted while waiting; nothing was stopped",
                        false => "interrupted while waiting; the steps above were done",
                    };
                    break Err(Ended::new(Came::Interrupted, why));
                };
                let Proof { end, time_wait, .. } = proof?;
                if time_wait.count > log.time_wait.count {
                    log.time_wait = time_wait;
                }
                if end == End::TimedOut && kill_after.take().is_some() && begin.elapsed() < limit {
                    for target in targets.iter().filter(|target| !target.has_exited()) {
                        if let Err(error) = target.kill() {
                            say(format_args!("portwatch: {error}"));
                        } else if let Some(process) = log.steps.last_mut().and_then(|done| {
                            done.signalled.iter_mut().find(|it| it.pid == target.pid)
                        }) {
                            process.signal = "SIGKILL".to_owned();
                        }
                    }
                    continue;
                }
                break Ok(end);
            };
        progress.end(None);
        Ok(ended)
    }

    /// Decides by what is on the port after the steps whether that is the end; `None` for
    /// another round.
    fn in_the_end(&self, now: &Explanation, end: End, log: &Log) -> Option<Ended> {
        if plan(now, &self.own) == Plan::Free {
            return Some(Ended::new(Came::Freed, ""));
        }
        let diagnosis = now.diagnosis.as_ref()?;
        let named = diagnosis.holder.as_ref().and_then(|holder| holder.pid);
        let mut all = now.sockets.iter().flat_map(|socket| &socket.holders);
        let holder = all.find(|process| Some(process.pid) == named);
        let out_of_time = self.left().is_zero();
        match holder {
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

fn signalled(target: &Target) -> Signalled {
    Signalled {
        pid: target.pid,
        comm: target.comm.clone(),
        signal: "SIGTERM".to_owned(),
        exited: target.has_exited(),
    }
}

fn failed(error: &ActError) -> Ended {
    Ended { denied: error.is_denied(), ..Ended::new(Came::Failed, error.to_string()) }
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
