//! A child's output, line by line, each with the time at which it came.

use std::{
    io::{self, BufRead as _, BufReader, Read},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::monotonic_ns;

/// One line, without its end.
pub struct Line {
    /// What it says.
    pub text: String,
    /// When it was read, as [`monotonic_ns`].
    pub at_ns: u64,
    json: OnceLock<Option<Value>>,
}

impl Line {
    /// The line as JSON, if it is JSON.
    pub fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| serde_json::from_str(&self.text).ok()).as_ref()
    }
}

/// Holds back a [`Stream`] until it is dropped: a reader that stalls.
pub struct Gate {
    _open: Sender<()>,
}

/// A source behind a [`Gate`].
pub struct Stalled<R> {
    source: R,
    closed: Option<Receiver<()>>,
}

impl<R> Stalled<R> {
    /// `source`, of which nothing is read before the gate is dropped.
    pub fn new(source: R) -> (Self, Gate) {
        let (open, closed) = channel();
        (Self { source, closed: Some(closed) }, Gate { _open: open })
    }
}

impl<R: Read> Read for Stalled<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(closed) = self.closed.take() {
            // Nothing is ever sent: this returns when the gate is gone.
            closed.recv().ok();
        }
        self.source.read(into)
    }
}

/// Why a wait ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The time was up.
    TimedOut,
    /// The stream ended.
    Ended,
}

#[derive(Default)]
struct Received {
    lines: Vec<Line>,
    ended: bool,
}

/// Everything that came so far. A thread of its own reads it, so that the child
/// never waits for the test.
#[derive(Default)]
pub struct Stream {
    received: Mutex<Received>,
    changed: Condvar,
}

impl Stream {
    /// Starts to read `source` to its end.
    pub fn of(source: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let filled = Arc::clone(&stream);
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut bytes = Vec::new();
            while matches!(source.read_until(b'\n', &mut bytes), Ok(1..)) {
                let text = String::from_utf8_lossy(&bytes);
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                let line = Line { text, at_ns: monotonic_ns(), json: OnceLock::new() };
                bytes.clear();
                filled.lock().lines.push(line);
                filled.changed.notify_all();
            }
            filled.lock().ended = true;
            filled.changed.notify_all();
        });
        stream
    }

    /// Waits until `answer` finds what it looks for in the lines so far.
    pub fn wait_until<T>(
        &self,
        timeout: Duration,
        mut answer: impl FnMut(&[Line]) -> Option<T>,
    ) -> Result<T, Silence> {
        let deadline = Instant::now() + timeout;
        let mut read = self.lock();
        loop {
            if let Some(found) = answer(&read.lines) {
                return Ok(found);
            }
            if read.ended {
                return Err(Silence::Ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::TimedOut);
            }
            read = self.changed.wait_timeout(read, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Waits for the first line that contains `part`.
    pub fn wait_for_text(&self, timeout: Duration, part: &str) -> Result<String, Silence> {
        self.wait_until(timeout, |lines| {
            lines.iter().find(|line| line.text.contains(part)).map(|line| line.text.clone())
        })
    }

    /// Waits until the stream has ended, and gives all of it.
    pub fn wait_for_end(&self, timeout: Duration) -> String {
        // Both answers are fine here: what came is what there is.
        self.wait_until(timeout, |_| None::<()>).ok();
        self.text()
    }

    /// Looks at the lines so far.
    pub fn look<T>(&self, at: impl FnOnce(&[Line]) -> T) -> T {
        at(&self.lock().lines)
    }

    /// All of it so far, as one text.
    pub fn text(&self) -> String {
        self.look(|lines| lines.iter().map(|line| format!("{}\n", line.text)).collect())
    }

    /// A panic in another test's closure leaves the lines as they were.
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn lines_are_found_and_the_end_is_told() {
        let stream = Stream::of(&b"one\n{\"two\": 2}\nthree"[..]);
        assert_eq!(stream.wait_for_text(SOON, "two"), Ok("{\"two\": 2}".to_owned()));
        assert_eq!(stream.wait_for_end(SOON), "one\n{\"two\": 2}\nthree\n");
        assert_eq!(stream.wait_for_text(SOON, "four"), Err(Silence::Ended));
        let numbers = stream.look(|lines| lines.iter().filter(|l| l.json().is_some()).count());
        assert_eq!(numbers, 1);
    }

    #[test]
    fn a_wait_is_bounded() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let stream = Stream::of(reader);
        let short = Duration::from_millis(20);
        assert_eq!(stream.wait_for_text(short, "never"), Err(Silence::TimedOut));
    }
}
