//! What may take for ever is done on a thread of its own: a server or a user's process
//! that does not answer for its file system holds up whoever opens a file there, or only
//! asks what file system it is.

use std::{
    sync::mpsc::{self, Receiver, TryRecvError},
    thread,
    time::{Duration, Instant},
};

/// How long one look may take. From the page cache it is a fraction of this.
const PATIENCE: Duration = Duration::from_millis(50);

/// Looks aside, one at a time.
pub struct Aside<T> {
    /// The answer of the thread that was waited for last and took too long. While it is
    /// stuck no other is made.
    stuck: Option<Receiver<Option<T>>>,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self { stuck: None }
    }
}

impl<T: Send + 'static> Aside<T> {
    /// What `look` returns, if it does so in time.
    pub fn within(
        &mut self,
        deadline: Instant,
        look: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let still = |answer: &Receiver<_>| matches!(answer.try_recv(), Err(TryRecvError::Empty));
        if self.stuck.as_ref().is_some_and(still) {
            return None;
        }
        self.stuck = None;
        let patience = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
        let (say, answer) = mpsc::sync_channel(1);
        let made = thread::Builder::new().name("aside".to_owned()).spawn(move || {
            // Nobody may be waiting any more.
            let _ = say.send(look());
        });
        if made.is_err() {
            return None;
        }
        match answer.recv_timeout(patience) {
            Ok(found) => found,
            Err(_) => {
                self.stuck = Some(answer);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_not_waited_for() {
        let mut aside = Aside::default();
        let deadline = || Instant::now() + Duration::from_millis(250);
        let (go_on, wait) = mpsc::channel::<()>();
        let began = Instant::now();
        let hangs = move || wait.recv().ok().and(None);
        assert_eq!(aside.within(deadline(), hangs), None);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        // While that one hangs there is no other.
        assert_eq!(aside.within(deadline(), || Some(7)), None);
        go_on.send(()).unwrap();
        let patience = Instant::now() + Duration::from_secs(10);
        while aside.within(deadline(), || Some(7)).is_none() {
            assert!(Instant::now() < patience, "it has gone on");
        }
    }
}
