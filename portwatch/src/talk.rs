//! What the agent says about itself, on stderr. Once there are threads, none of them
//! waits for whoever reads that: a thread of its own writes, and what it has no room
//! for is counted and said when there is room again.

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

/// What may wait to be said.
const ROOM: Budget = Budget { most: 1024, cost: 256 << 10 };
/// How long is waited, where it matters, for what was not said yet.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// There from [`start`] on.
static TALK: OnceLock<Sender<Word>> = OnceLock::new();
/// Messages that there was no room for, since that was last said.
static UNSAID: AtomicU64 = AtomicU64::new(0);
/// Messages that were dropped, by who would have heard them.
static DROPPED: [AtomicU64; Ear::VARIANTS.len()] =
    [const { AtomicU64::new(0) }; Ear::VARIANTS.len()];

/// Who hears what the agent says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Ear {
    /// Whoever reads stderr.
    Stderr,
    /// The one at `NOTIFY_SOCKET`.
    ServiceManager,
}

impl Ear {
    /// A message was dropped, since it was not taken.
    pub fn missed_one(self) {
        self.count().fetch_add(1, Relaxed);
    }

    /// How many were dropped so far.
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
    /// Asks whether everything before was said.
    All(mpsc::Sender<()>),
}

/// From now on nobody waits for what they say. Starts a thread, the first time.
pub fn start() {
    if TALK.get().is_some() {
        return;
    }
    let (sender, words) = queue(ROOM);
    if TALK.set(sender).is_ok() {
        let started = thread::Builder::new().name("talk".to_owned()).spawn(move || run(&words));
        if let Err(error) = started {
            // What is said from now on is not heard.
            write(format!("portwatch: cannot write more log messages: {error}\n").as_bytes());
        }
    }
}

/// Waits a moment until everything is said.
pub fn settle() {
    let Some(talk) = TALK.get() else { return };
    let (done, all) = mpsc::channel();
    if talk.offer(Word::All(done), 0).is_ok() {
        // Whoever should read does not, and it stays unsaid.
        let _ = all.recv_timeout(LAST_WORDS);
    }
}

/// Whether the thread is there, and has what is to be said.
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
            // Nobody may be waiting any more.
            Next::One(Word::All(done)) => _ = done.send(()),
            Next::Nothing => {}
            Next::End => return,
        }
    }
}

/// Not by the standard library's stderr, whose lock others would wait for. There is
/// nobody to whom an error could be told.
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
