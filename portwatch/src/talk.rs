//! The agent's log messages, on stderr. Once there are several threads, none of them waits for
//! stderr, because a separate thread writes. Messages that do not fit in its queue are counted,
//! and the count is logged when there is space again.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::{io::retry_on_intr, stdio};
use strum::VariantArray as _;

use crate::shared::queue::{Budget, Next, Receiver, Sender, queue};

/// The limits of the queued messages.
const ROOM: Budget = Budget { most: 1024, cost: 256 << 10 };
/// How long to wait for messages that are not written yet, where they matter.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Set by [`start`].
static TALK: OnceLock<Sender<Word>> = OnceLock::new();
/// Messages that were dropped since the count was last logged.
static UNSAID: AtomicU64 = AtomicU64::new(0);
/// Messages that were dropped, by recipient.
static DROPPED: [AtomicU64; Ear::VARIANTS.len()] =
    [const { AtomicU64::new(0) }; Ear::VARIANTS.len()];

/// The recipients of the agent's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Ear {
    /// The process that reads stderr.
    Stderr,
    /// The owner of `NOTIFY_SOCKET`.
    ServiceManager,
}

impl Ear {
    /// Counts a message that was dropped because the recipient did not accept it.
    pub fn missed_one(self) {
        self.count().fetch_add(1, Relaxed);
    }

    /// Returns how many messages were dropped so far.
    pub fn missed(self) -> u64 {
        self.count().load(Relaxed)
    }

    fn count(self) -> &'static AtomicU64 {
        let [stderr, manager] = &DROPPED;
        match self {
            Self::Stderr => stderr,
            Self::ServiceManager => manager,
        }
    }
}

enum Word {
    Said(Vec<u8>),
    /// Asks whether everything before it was written.
    All(mpsc::Sender<()>),
}

/// Starts the thread on the first call. From then on no caller waits for stderr.
pub fn start() {
    if TALK.get().is_some() {
        return;
    }
    let (sender, words) = queue(ROOM);
    if TALK.set(sender).is_ok() {
        let started = thread::Builder::new().name("talk".to_owned()).spawn(move || run(&words));
        if let Err(error) = started {
            // Later messages are lost.
            write(format!("portwatch: cannot write more log messages: {error}\n").as_bytes());
        }
    }
}

/// Waits a moment until everything is written.
pub fn settle() {
    let Some(talk) = TALK.get() else { return };
    let (done, all) = mpsc::channel();
    if talk.offer(Word::All(done), 0).is_ok() {
        // If stderr is stuck, the messages stay unwritten.
        let _ = all.recv_timeout(LAST_WORDS);
    }
}

/// Returns whether the thread is running and has accepted the text.
pub fn takes(text: &[u8]) -> bool {
    let Some(talk) = TALK.get() else { return false };
    if talk.offer(Word::Said(text.to_vec()), text.len()).is_err() {
        UNSAID.fetch_add(1, Relaxed);
        Ear::Stderr.missed_one();
    }
    true
}

fn run(words: &Receiver<Word>) {
    loop {
        match words.next(None) {
            Next::One(Word::Said(bytes)) => {
                write(&bytes);
                let unsaid = UNSAID.swap(0, Relaxed);
                if unsaid > 0 {
                    write(format!("portwatch: {unsaid} messages were dropped here\n").as_bytes());
                }
            }
            // The caller may have stopped waiting.
            Next::One(Word::All(done)) => _ = done.send(()),
            Next::Nothing => {}
            Next::End => return,
        }
    }
}

/// Writes without the standard library's stderr, because others would wait for its lock. An
/// error could not be reported to anybody.
fn write(mut bytes: &[u8]) {
    let stderr = stdio::stderr();
    while !bytes.is_empty() {
        match retry_on_intr(|| rustix::io::write(stderr, bytes)) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(_) => return Ear::Stderr.missed_one(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_for_whoever_missed_it() {
        let before = Ear::ServiceManager.missed();
        Ear::ServiceManager.missed_one();
        assert!(Ear::ServiceManager.missed() > before);
        let names = Ear::VARIANTS.iter().map(<&str>::from);
        assert!(names.eq(["stderr", "service_manager"]));
    }
}
