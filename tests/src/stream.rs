//! A child's output, line by line, each with its time.

use std::{
    io::{self, BufRead as _, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::monotonic_ns;

/// One line, without its end.
pub struct Line {
    /// Its text.
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

/// What a line is worth to those who wait for some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// They look at it, now and later.
    Keeping,
    /// It is not kept, but may change what they wait for.
    Noticing,
    /// It is others'.
    Nothing,
}

/// How a child's output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it comes.
    Freely,
    /// A page, as a pipe's buffers are, and then nothing for this time.
    Pages(Duration),
    /// Not at all.
    Stuck,
    /// No more: the reader closes its end.
    Gone,
}

/// What a pipe takes at a time.
const PAGE: usize = 4096;

/// Sets how a [`Gated`] source is read. After this is dropped, freely.
pub struct Gate(Arc<(Mutex<Manner>, Condvar)>);

impl Gate {
    /// Changes the manner from now on; a read that has started ends normally.
    pub fn set(&self, manner: Manner) {
        let (now, changed) = &*self.0;
        *now.lock().unwrap_or_else(|e| e.into_inner()) = manner;
        changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.set(Manner::Freely);
    }
}

/// A source behind a [`Gate`]: a reader that is slow, or stalls.
pub struct Gated<R> {
    source: R,
    gate: Arc<(Mutex<Manner>, Condvar)>,
}

impl<R> Gated<R> {
    /// `source`, read in this manner until the gate says otherwise.
    pub fn new(source: R, manner: Manner) -> (Self, Gate) {
        let gate = Arc::new((Mutex::new(manner), Condvar::new()));
        (Self { source, gate: Arc::clone(&gate) }, Gate(gate))
    }

    /// Waits until something may be read, and returns how much.
    fn wait(&self) -> usize {
        let (manner, changed) = &*self.gate;
        let mut now = manner.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            match *now {
                Manner::Freely => return usize::MAX,
                // The end, for the owner of this.
                Manner::Gone => return 0,
                Manner::Stuck => now = changed.wait(now).unwrap_or_else(|e| e.into_inner()),
                Manner::Pages(pause) => {
                    let waited = changed.wait_timeout(now, pause);
                    let (then, waited) = waited.unwrap_or_else(|e| e.into_inner());
                    if waited.timed_out() && matches!(*then, Manner::Pages(_)) {
                        return PAGE;
                    }
                    now = then;
                }
            }
        }
    }
}

impl<R: Read> Read for Gated<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = self.wait().min(into.len());
        self.source.read(&mut into[..most])
    }
}

/// Why a wait ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The time limit was reached.
    TimedOut,
    /// The stream ended.
    Ended,
}

#[derive(Default)]
struct Received {
    lines: Vec<Line>,
    ended: bool,
}

/// Everything so far. A thread of its own reads it, so that the child never waits for the
/// test.
#[derive(Default)]
pub struct Stream {
    received: Mutex<Received>,
    changed: Condvar,
}

impl Stream {
    /// Starts to read `source` to its end.
    pub fn of(source: impl Read + Send + 'static) -> Arc<Self> {
        Self::of_some(source, |_| Worth::Keeping)
    }

    /// The same with the lines alone that are worth it.
    pub fn of_some(
        source: impl Read + Send + 'static,
        mut worth: impl FnMut(&str) -> Worth + Send + 'static,
    ) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let filled = Arc::clone(&stream);
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut bytes = Vec::new();
            while matches!(source.read_until(b'\n', &mut bytes), Ok(1..)) {
                let text = String::from_utf8_lossy(&bytes);
                let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
                bytes.clear();
                match worth(&text) {
                    Worth::Keeping => {
                        let line = Line { text, at_ns: monotonic_ns(), json: OnceLock::new() };
                        filled.lock().lines.push(line);
                    }
                    Worth::Noticing => {}
                    Worth::Nothing => continue,
                }
                filled.changed.notify_all();
            }
            filled.lock().ended = true;
            filled.changed.notify_all();
        });
        stream
    }

    /// Waits until `answer` returns something for the lines so far.
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

    /// Waits until the stream has ended, and returns all of it.
    pub fn wait_for_end(&self, timeout: Duration) -> String {
        // Both results are fine here: all lines are there.
        self.wait_until(timeout, |_| None::<()>).ok();
        self.text()
    }

    /// Calls `at` with the lines so far.
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
    fn a_gate_holds_back_and_lets_go() {
        let (gated, gate) = Gated::new(&[b'a'; 3 * PAGE][..], Manner::Stuck);
        let stream = Stream::of(gated);
        let short = Duration::from_millis(20);
        assert_eq!(stream.wait_for_text(short, "a"), Err(Silence::TimedOut));
        gate.set(Manner::Pages(short));
        assert_eq!(stream.wait_for_end(SOON).len(), 3 * PAGE + 1);
    }

    #[test]
    fn a_wait_is_bounded() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let stream = Stream::of(reader);
        let short = Duration::from_millis(20);
        assert_eq!(stream.wait_for_text(short, "never"), Err(Silence::TimedOut));
    }
}
