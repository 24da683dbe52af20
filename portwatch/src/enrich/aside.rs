//! Runs operations on a thread that the agent can abandon, because another process can delay
//! them for as long as it likes: reading its memory (the kernel takes its mmap lock, and may
//! wait for the process that serves its pages), and opening its files.
//!
//! The time spent on waits is limited: for one answer, for one event, for one user, and in
//! total.

use std::{
    cell::RefCell,
    sync::{
        Arc, OnceLock,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::kernel::{nsfs::UserNamespace, rights};

/// Time limit for one answer. It usually takes microseconds, but a busy machine may need some
/// milliseconds to run the thread at all.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a process that did not answer is skipped, and counts against its user.
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// A late answer within this time may be late because the machine was busy. Then a user's
/// processes are skipped for at most [`LEFT_ALONE_IF_BUSY`], and root's are not skipped at all.
const BUSY: Duration = Duration::from_millis(500);
const LEFT_ALONE_IF_BUSY: Duration = Duration::from_secs(1);
/// Threads that one user's processes may occupy.
const MOST_OF_USER: usize = 2;
/// Threads that root's processes may occupy. Most requests are about services, which root runs
/// without bad intent.
const MOST_OF_ROOT: usize = MOST / 2;
/// Threads that may be occupied in total.
const MOST: usize = 32;

/// The process or user that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The process.
    pub pid: u32,
    /// When it started.
    pub started_ns: u64,
    /// The account that it counts against.
    pub account: Account,
}

/// The processes that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A user; `None` if the user is unknown.
    User(Option<u32>),
    /// Those in a user namespace that root created, such as a container.
    Namespace(u32),
}

impl Account {
    /// Returns the account of a process with this real user in this namespace. A user who
    /// creates a user namespace has all the ids there that root granted (`subuid(5)`), and
    /// still counts as one user.
    pub fn of(uid: Option<u32>, outermost: Option<UserNamespace>) -> Self {
        match outermost {
            None => Self::User(uid),
            Some(UserNamespace { owner: 0, inode }) => Self::Namespace(inode),
            Some(UserNamespace { owner, .. }) => Self::User(Some(owner)),
        }
    }
}

impl Who {
    /// Returns a user, for files that do not belong to one process.
    pub fn user(uid: u32) -> Self {
        Self { pid: 0, started_ns: 0, account: Account::User(Some(uid)) }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// There was no answer in time.
    #[error("it did not respond within {} ms", PATIENCE.as_millis())]
    Late,
    /// This process, or other processes of its user, did not answer before.
    #[error("it was skipped, because processes of its user did not respond before")]
    LeftAlone,
    /// No thread is available.
    #[error("no thread could be started")]
    NoThread,
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread for operations that may never return, and the threads whose operation did not
/// return.
pub struct Aside(RefCell<Threads>);

struct Threads {
    worker: Option<(Sender<Job>, JoinHandle<()>)>,
    late: Vec<Late>,
    /// Remaining time for waits that end without an answer.
    in_vain: Duration,
}

/// A process for which a thread was abandoned.
struct Late {
    who: Who,
    since: Instant,
    /// The time at which the late answer arrived.
    returned: Arc<OnceLock<Instant>>,
}

impl Late {
    /// Returns whether it is still skipped.
    fn counts(&self) -> bool {
        let Some(returned) = self.returned.get() else { return true };
        let left_alone = match self.who.account {
            _ if returned.duration_since(self.since) >= BUSY => LEFT_ALONE,
            Account::User(Some(0)) => Duration::ZERO,
            Account::User(_) | Account::Namespace(_) => LEFT_ALONE_IF_BUSY,
        };
        self.since.elapsed() < left_alone
    }
}

impl Default for Aside {
    fn default() -> Self {
        Self(RefCell::new(Threads { worker: None, late: Vec::new(), in_vain: PATIENCE }))
    }
}

impl Aside {
    /// Starts another event, with this time limit for waits without an answer.
    pub fn begin(&self, in_vain: Duration) {
        self.0.borrow_mut().in_vain = in_vain;
    }

    /// Returns the result of `job`, which `who` may delay.
    ///
    /// # Errors
    /// There was no answer in time, or `who` is skipped.
    pub fn ask<T: Send + 'static>(
        &self,
        who: Who,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        self.0.borrow_mut().ask(who, job)
    }

    /// Ends the idle thread; abandoned threads remain.
    pub fn rest(&self) {
        if let Some((jobs, thread)) = self.0.borrow_mut().worker.take() {
            drop(jobs);
            // It has panicked, which `ask` has already reported as no answer.
            let _ = thread.join();
        }
    }
}

impl Threads {
    fn ask<T: Send + 'static>(
        &mut self,
        who: Who,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let patience = PATIENCE.min(self.in_vain);
        if patience.is_zero() || self.leaves_alone(who) {
            return Err(Unanswered::LeftAlone);
        }
        let (say, answer) = mpsc::sync_channel(1);
        let returned = Arc::new(OnceLock::new());
        let has_returned = Arc::clone(&returned);
        self.start(Box::new(move || {
            // The caller may have stopped waiting.
            let _ = say.send(job());
            let _ = has_returned.set(Instant::now());
        }))?;
        let since = Instant::now();
        match answer.recv_timeout(patience) {
            Ok(outcome) => return Ok(outcome),
            Err(RecvTimeoutError::Disconnected) => return Err(Unanswered::NoThread),
            Err(RecvTimeoutError::Timeout) => {}
        }
        self.worker = None;
        self.in_vain = self.in_vain.saturating_sub(since.elapsed());
        self.late.push(Late { who, since, returned });
        Err(Unanswered::Late)
    }

    fn leaves_alone(&mut self, who: Who) -> bool {
        self.late.retain(Late::counts);
        let most = match who.account {
            Account::User(Some(0)) => MOST_OF_ROOT,
            Account::User(_) | Account::Namespace(_) => MOST_OF_USER,
        };
        let of_user = self.late.iter().filter(|late| late.who.account == who.account).count();
        self.late.len() >= MOST || of_user >= most || self.late.iter().any(|late| late.who == who)
    }

    fn start(&mut self, job: Job) -> Result<(), Unanswered> {
        let job = match &self.worker {
            Some((jobs, _)) => match jobs.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(job)) => job,
            },
            None => job,
        };
        let (jobs, next) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("aside".to_owned()).spawn(move || {
            // The thread stays only if it can drop its capabilities like the other threads.
            if rights::give_away_of_thread().is_ok() {
                next.into_iter().for_each(|job| job());
            }
        });
        jobs.send(job).map_err(|_| Unanswered::NoThread)?;
        self.worker = Some((jobs, thread.map_err(|_| Unanswered::NoThread)?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;

    fn who(pid: u32, uid: u32) -> Who {
        Who { pid, started_ns: 1, account: Account::User(Some(uid)) }
    }

    /// A process that does not answer until the sender is dropped.
    fn hanging() -> (mpsc::Sender<()>, Receiver<()>) {
        mpsc::channel()
    }

    fn hangs(aside: &Aside, who: Who) -> mpsc::Sender<()> {
        let (end, wait) = hanging();
        aside.begin(2 * PATIENCE);
        assert_eq!(aside.ask(who, move || wait.recv().is_ok()), Err(Unanswered::Late));
        end
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for_again() {
        let aside = Aside::default();
        assert_eq!(aside.ask(who(1, 1), || 7), Ok(7));
        let began = Instant::now();
        let _end = hangs(&aside, who(7, 1000));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(aside.ask(who(7, 1000), || ()), Err(Unanswered::LeftAlone));
        assert_eq!(aside.ask(who(8, 1000), || 8), Ok(8), "another process of the user");
        let later = Who { started_ns: 2, ..who(7, 1000) };
        assert_eq!(aside.ask(later, || 9), Ok(9), "a later process of the number");
    }

    #[test]
    fn a_user_whose_files_do_not_answer_is_no_other_user() {
        let aside = Aside::default();
        let _end = hangs(&aside, Who::user(1000));
        aside.begin(2 * PATIENCE);
        assert_eq!(aside.ask(Who::user(1000), || ()), Err(Unanswered::LeftAlone));
        // It is asked; on a busy machine it may be late.
        assert_ne!(aside.ask(Who::user(1001), || 1), Err(Unanswered::LeftAlone));
    }

    /// On a busy machine a thread may not even run in time.
    #[test]
    fn who_answers_a_little_late_is_asked_again() {
        let aside = Aside::default();
        let ends = [hangs(&aside, who(7, 1000)), hangs(&aside, who(8, 1000))];
        drop(ends);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            aside.begin(2 * PATIENCE);
            match aside.ask(who(7, 1000), || 7) {
                Ok(answer) => break assert_eq!(answer, 7),
                Err(_) => assert!(Instant::now() < deadline, "it is left alone"),
            }
        }
    }

    #[test]
    fn one_user_does_not_take_all_threads() {
        let aside = Aside::default();
        let _ends = [hangs(&aside, who(7, 1000)), hangs(&aside, who(8, 1000))];
        aside.begin(2 * PATIENCE);
        assert_eq!(aside.ask(who(9, 1000), || ()), Err(Unanswered::LeftAlone));
        assert_eq!(aside.ask(who(10, 1001), || 10), Ok(10));
    }

    /// By all of the numbers that it has in its namespaces.
    #[test]
    fn one_user_is_one_whatever_its_numbers() {
        let outermost = |owner, inode| Some(UserNamespace { owner, inode });
        let number = |uid, outermost| Account::of(Some(uid), outermost);
        assert_eq!(number(100_000, outermost(1000, 5)), number(1000, None));
        assert_eq!(number(100_001, outermost(1000, 6)), number(1000, None));
        assert_ne!(number(1000, outermost(1001, 5)), number(1000, None));
        // Root's containers are not root, and not one another.
        assert_eq!(number(100_000, outermost(0, 5)), number(100_001, outermost(0, 5)));
        assert_ne!(number(100_000, outermost(0, 5)), number(100_000, outermost(0, 6)));
        assert_ne!(number(0, outermost(0, 5)), number(0, None));
    }

    #[test]
    fn the_threads_are_bounded() {
        let aside = Aside::default();
        let users = 0..u32::try_from(MOST).unwrap();
        let _ends: Vec<_> = users.map(|user| hangs(&aside, who(100 + user, user))).collect();
        aside.begin(2 * PATIENCE);
        assert_eq!(aside.ask(who(1, 5000), || ()), Err(Unanswered::LeftAlone));
    }

    #[test]
    fn one_event_is_not_held_up_by_many() {
        let aside = Aside::default();
        aside.begin(2 * PATIENCE);
        let began = Instant::now();
        let mut ends = Vec::new();
        for user in 0..20 {
            let (end, wait) = hanging();
            ends.push(end);
            let _ = aside.ask(who(user, user), move || wait.recv().is_ok());
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(aside.ask(who(99, 99), || ()), Err(Unanswered::LeftAlone));
        aside.begin(2 * PATIENCE);
        assert_eq!(aside.ask(who(99, 99), || 1), Ok(1), "the next event is");
    }

    /// A process that is late again and again takes no more of others' time than one that
    /// never answers.
    #[test]
    fn who_has_answered_late_is_left_alone_for_a_while() {
        let aside = Aside::default();
        drop(hangs(&aside, who(7, 1000)));
        drop(hangs(&aside, who(8, 1000)));
        aside.begin(2 * PATIENCE);
        assert_eq!(aside.ask(who(9, 1000), || ()), Err(Unanswered::LeftAlone));
        aside.0.borrow_mut().late.iter_mut().for_each(|late| late.since -= LEFT_ALONE);
        let patience = Instant::now() + Duration::from_secs(10);
        while aside.ask(who(7, 1000), || ()).is_err() {
            assert!(Instant::now() < patience, "they have returned");
        }
    }

    #[test]
    fn at_rest_there_is_no_thread() {
        let aside = Aside::default();
        assert_eq!(aside.ask(who(1, 1), || 7), Ok(7));
        aside.rest();
        assert!(aside.0.borrow().worker.is_none());
        assert_eq!(aside.ask(who(1, 1), || 7), Ok(7));
    }
}
