//! The steps of a plan: each is done on a thread of its own, and then the port is watched until
//! it is free.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

use super::{Ended, Log, Taking, millis};
use crate::{
    cli::{error::Failure, streams::say, wait::progress::Progress},
    enrich::host::Host,
    event::action::{By, Done, Result as Came, Signalled},
    explain::Question,
    free::{
        act::{self, ActError},
        plan::{Proposal, Step},
        proof::{End, Proof, until_free},
        signals::Target,
    },
};

/// How long a step has until the next one deals with what it has left.
const BETWEEN: Duration = Duration::from_secs(2);
/// How long the port must stay free after a signal: systemd waits 100 ms before it restarts a
/// unit (RestartSec=), a shell's loop does not wait at all.
const SETTLES: Duration = Duration::from_millis(400);

impl Taking<'_> {
    /// Does the steps, as many as are needed, and waits after each.
    pub(super) fn act(
        &mut self,
        question: &Question,
        proposal: &Proposal,
        log: &mut Log,
    ) -> Result<Result<End, Ended>, Failure> {
        let (mut end, mut last) = (End::TimedOut, Vec::new());
        for (number, step) in proposal.steps.iter().enumerate() {
            let (is_first, is_last) = (number == 0, number + 1 == proposal.steps.len());
            let targets = match self.does(step, &proposal.inodes, log) {
                Ok(targets) => targets,
                Err(ended) if is_first => return Ok(Err(ended)),
                // What the first step has left has exited by itself, or is another now.
                Err(_) => Vec::new(),
            };
            let limit = if is_last { self.left() } else { self.left().min(self.between(&targets)) };
            end = match self.prove(question, &proposal.inodes, limit, &targets, log)? {
                Ok(end) => end,
                Err(ended) => return Ok(Err(ended)),
            };
            note_exits(log, &targets);
            last = targets;
            if end != End::TimedOut || is_last {
                break;
            }
        }
        // A manager that was asked starts nothing again. After a signal somebody may.
        let by = log.steps.last().and_then(|done| done.by);
        if end == End::Free && matches!(by, Some(By::Signal | By::Command)) {
            let settled = self.settles(question, log)?;
            // A process may close its socket well before it exits.
            note_exits(log, &last);
            return Ok(settled);
        }
        Ok(Ok(end))
    }

    /// How long a step has until the next one follows. SIGKILL comes before that.
    fn between(&self, targets: &[Target]) -> Duration {
        match self.args.kill_after {
            Some(after) if !targets.is_empty() => BETWEEN.saturating_add(after),
            _ => BETWEEN,
        }
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
    pub(super) fn prove(
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
                let Proof { end, time_wait } = proof?;
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
}

/// Records which processes of the last step have exited.
fn note_exits(log: &mut Log, targets: &[Target]) {
    let signalled = log.steps.last_mut().map(|done| &mut done.signalled);
    for process in signalled.into_iter().flatten() {
        let mut targets = targets.iter().filter(|target| target.pid == process.pid);
        process.exited |= targets.any(Target::has_exited);
    }
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
