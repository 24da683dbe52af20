//! Searches all open files, if there is time for it. The kernel finishes a pass only after it
//! has seen all files, so a user with many files makes it slow for everybody. The duration of
//! the last pass predicts whether another one would end before the deadline.

use std::time::{Duration, Instant};

use crate::kernel::files::{Files, Looked, SearchError, Sought, Take};

/// The duration of a pass is valid for this many times that duration, because files are closed
/// too.
const BELIEVED: u32 = 20;

/// The search, and the time it takes.
pub struct Paced {
    files: Box<dyn Files>,
    last: Option<Pass>,
}

struct Pass {
    ended: Instant,
    took: Duration,
}

impl Paced {
    /// Creates a search that uses `files`.
    pub fn new(files: Box<dyn Files>) -> Self {
        Self { files, last: None }
    }
}

impl Files for Paced {
    /// Makes a pass if one that takes as long as the last pass would end in time. Others wait for it.
    fn search(&mut self, sought: Sought<'_>, deadline: Instant, take: Take<'_>) -> Looked {
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began);
        if let Some(Pass { ended, took }) = self.last
            && left < took
            && began.duration_since(ended) < took * BELIEVED
        {
            return Err(SearchError::TooLong { took });
        }
        let result = self.files.search(sought, deadline, take);
        let ended = Instant::now();
        self.last = Some(Pass { ended, took: ended.duration_since(began) });
        result
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A search that takes this long.
    struct Slow(Duration);

    impl Files for Slow {
        fn search(&mut self, _: Sought<'_>, _: Instant, _: Take<'_>) -> Looked {
            thread::sleep(self.0);
            Ok(())
        }
    }

    #[test]
    fn a_pass_that_would_be_late_is_not_made() {
        const LONG: Duration = Duration::from_millis(100);
        let mut files = Paced::new(Box::new(Slow(LONG)));
        let mut search =
            |patience| files.search(Sought::InFlight, Instant::now() + patience, &mut |_| ());
        assert!(search(LONG / 10).is_ok(), "nobody knows yet how long it takes");
        let why = search(LONG / 10).unwrap_err().to_string();
        assert!(why.starts_with("a search of all open files takes 1"), "{why}");
        assert!(search(LONG * 3 / 4).is_err(), "it would be late for the next one");
        assert!(search(LONG * 10).is_ok(), "there is time");
    }
}
