//! The thread that asks service managers about units whose process has exited, once for each
//! outcome, and then passes the outcome on. A manager that does not answer delays only the
//! outcomes of services.

use std::{io, sync::Arc, thread, time::Duration};

use super::{
    outcomes::{Service, Told},
    outlet::Outlets,
};
use crate::{
    enrich::managers::{AfterExit, Failure, Managers},
    event::{Outcome, Record},
    evidence::{Fact, Gap},
    shared::queue::{Budget, Next, Receiver, Sender, queue},
};

/// Outcomes that wait for an answer. Further outcomes are passed on without one.
const QUEUE: Budget = Budget { most: 256, cost: 256 };

/// Passes outcomes on.
pub struct Asking {
    outlets: Arc<Outlets>,
    queue: Option<Sender<(Outcome, Service)>>,
}

impl Asking {
    /// Starts the thread, if outcomes are reported at all within `window`. It ends when this is
    /// dropped and no outcome waits.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(outlets: &Arc<Outlets>, window: Duration) -> io::Result<Self> {
        if window.is_zero() {
            return Ok(Self { outlets: Arc::clone(outlets), queue: None });
        }
        let (sender, receiver) = queue(QUEUE);
        let to = Arc::clone(outlets);
        thread::Builder::new().name("managers".to_owned()).spawn(move || run(&receiver, &to))?;
        Ok(Self { outlets: Arc::clone(outlets), queue: Some(sender) })
    }

    /// Passes an outcome on, through the thread if a manager must be asked.
    pub fn pass(&self, told: Told) {
        let Told { outcome, ask } = told;
        let Some((queue, service)) = self.queue.as_ref().zip(ask) else {
            return offer(&self.outlets, outcome);
        };
        let copy = outcome.clone();
        if queue.offer((copy, service), 1).is_err() {
            offer(&self.outlets, outcome);
        }
    }
}

fn run(queue: &Receiver<(Outcome, Service)>, outlets: &Outlets) {
    let managers = Managers::current();
    loop {
        match queue.next(None) {
            Next::One((mut outcome, service)) => {
                if managers.are_there() {
                    add(&mut outcome, &service, managers.after_exit(service.owner, &service.unit));
                }
                offer(outlets, outcome);
            }
            Next::Nothing => {}
            Next::End => break,
        }
    }
}

fn offer(outlets: &Outlets, outcome: Outcome) {
    outlets.offer(Record::Outcome(Box::new(outcome)));
}

/// Adds the manager's answer.
fn add(outcome: &mut Outcome, service: &Service, answer: Result<AfterExit, Failure>) {
    let Some(unit) = &mut outcome.unit else { return };
    let AfterExit { result, restarts, state, main_pid } = match answer {
        Ok(answer) => answer,
        Err(why) => {
            outcome.gaps.push(Gap::new(Fact::Restarts, why.to_string()));
            return;
        }
    };
    let again = restarts.zip(service.restarts).map(|(now, then)| now > then);
    // Somebody may have started the unit, which resets the count to 0. A unit whose main
    // process did not fail was running all the time.
    let another = matches!((service.main_pid, main_pid),
        (Some(then), Some(now)) if now != 0 && now != then);
    unit.restarted = match (unit.restarted, again, state.as_str()) {
        (Some(true), ..) | (_, Some(true), _) => Some(true),
        _ if another => Some(true),
        (_, _, "inactive" | "failed") => Some(false),
        (restarted, ..) => restarted,
    };
    (unit.result, unit.restarts) = (Some(result), restarts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::outcome::{Became, examples};

    /// The main process had the number 7 before.
    fn told(before: Option<u32>, answer: Result<(u32, &str, u32), Failure>) -> Outcome {
        let mut outcome = examples().into_iter().find(|one| one.outcome == Became::Exited).unwrap();
        outcome.unit.as_mut().unwrap().restarted = None;
        let (unit, main_pid) = ("app.service".to_owned(), before.map(|_| 7));
        let service = Service { unit, owner: None, restarts: before, main_pid };
        let answer = answer.map(|(restarts, state, main)| AfterExit {
            main_pid: Some(main),
            result: "exit-code".to_owned(),
            restarts: Some(restarts),
            state: state.to_owned(),
        });
        add(&mut outcome, &service, answer);
        outcome
    }

    #[test]
    fn whether_it_was_restarted_shows_by_the_count_or_the_state() {
        for (before, answer, restarted) in [
            (Some(0), (1, "activating", 0), Some(true)),
            (Some(3), (3, "failed", 0), Some(false)),
            (Some(3), (3, "activating", 0), None),
            (Some(3), (0, "active", 8), Some(true)),
            (None, (0, "inactive", 0), Some(false)),
            (None, (0, "active", 8), None),
        ] {
            let unit = told(before, Ok(answer)).unit.unwrap();
            assert_eq!(unit.restarted, restarted, "{before:?}, then {answer:?}");
            assert_eq!(
                (unit.result.as_deref(), unit.restarts),
                (Some("exit-code"), Some(answer.0))
            );
        }
    }

    #[test]
    fn a_manager_that_does_not_answer_is_a_gap() {
        let outcome = told(None, Err(Failure::NoTime));
        assert_eq!(outcome.gaps.len(), 1);
        assert_eq!(outcome.unit.unwrap().restarted, None);
    }
}
