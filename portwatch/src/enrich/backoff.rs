//! Pauses for services of the host and of users that were slow to answer, longer each time. A
//! service's owner decides how long an answer takes, and all other events wait for it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

/// An answer takes a few milliseconds.
const SLOW: Duration = Duration::from_millis(50);
/// Factor between the time of the answer and the first pause.
const FACTOR: u32 = 10;
const LONGEST: Duration = Duration::from_secs(60);
/// The most services that are remembered.
const MOST: usize = 256;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered<E> {
    /// The service did not answer.
    #[error("{0}")]
    Failed(Arc<E>),
    /// It was not asked, because it was slow to fail last time.
    #[error("{error}; it is not asked again for {left} s")]
    HasFailed {
        /// The error.
        error: Arc<E>,
        /// Seconds until it is asked again.
        left: u64,
    },
    /// It was not asked, because its last answer was slow.
    #[error("it took {} ms to answer; it is not asked again for {left} s", .took.as_millis())]
    WasSlow {
        /// How long it took.
        took: Duration,
        /// Seconds until it is asked again.
        left: u64,
    },
}

/// Services that were slow, by the address at which they are asked.
pub struct Backoff<K, E>(HashMap<K, Slow<E>>);

struct Slow<E> {
    until: Instant,
    pause: Duration,
    took: Duration,
    /// The error, if it was slow to fail.
    error: Option<Arc<E>>,
}

impl<K, E> Default for Backoff<K, E> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash, E> Backoff<K, E> {
    /// Returns the result of `ask`, unless the service was slow a while ago.
    ///
    /// # Errors
    /// The error of `ask`, or, if it was not asked, the last error and the reason.
    pub fn asked<T>(
        &mut self,
        service: &K,
        ask: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Unanswered<E>> {
        let began = Instant::now();
        let before = self.0.get(service);
        if let Some(slow) = before.filter(|slow| began < slow.until) {
            let left = slow.until.duration_since(began).as_secs() + 1;
            return Err(match &slow.error {
                Some(error) => Unanswered::HasFailed { error: Arc::clone(error), left },
                None => Unanswered::WasSlow { took: slow.took, left },
            });
        }
        let before = before.map(|slow| slow.pause);
        let answer = ask().map_err(Arc::new);
        let now = Instant::now();
        let took = now.duration_since(began);
        if took < SLOW {
            self.0.remove(service);
            return answer.map_err(Unanswered::Failed);
        }
        let pause = before.map_or(took * FACTOR, |pause| pause * 2).min(LONGEST);
        let error = answer.as_ref().err().cloned();
        if self.0.len() >= MOST {
            self.0.retain(|_, slow| slow.until > now);
        }
        if self.0.len() >= MOST
            && let Some(soonest) = self.0.iter().min_by_key(|(_, slow)| slow.until)
        {
            let soonest = soonest.0.clone();
            self.0.remove(&soonest);
        }
        self.0.insert(service.clone(), Slow { until: now + pause, pause, took, error });
        answer.map_err(Unanswered::Failed)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, thread};

    use super::*;

    #[test]
    fn a_slow_service_is_asked_ever_more_seldom_and_others_are_not_concerned() {
        let mut backoff = Backoff::default();
        let asked = Cell::new(0);
        let slow = || {
            asked.set(asked.get() + 1);
            thread::sleep(SLOW);
            Err::<(), _>("no answer")
        };
        assert_eq!(backoff.asked(&"slow", slow).unwrap_err().to_string(), "no answer");
        let why = backoff.asked(&"slow", slow).unwrap_err().to_string();
        assert_eq!(why, "no answer; it is not asked again for 1 s");
        assert_eq!((asked.get(), backoff.asked(&"quick", || Ok(7)).unwrap()), (1, 7));
        let first = backoff.0["slow"].pause;
        backoff.0.get_mut("slow").unwrap().until = Instant::now();
        let _ = backoff.asked(&"slow", slow);
        assert_eq!((asked.get(), backoff.0["slow"].pause), (2, first * 2));
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let mut backoff = Backoff::default();
        let until = Instant::now() + LONGEST;
        for service in 0..MOST as u64 {
            backoff.0.insert(service, Slow { until, pause: SLOW, took: SLOW, error: None });
        }
        let slow = || {
            thread::sleep(SLOW);
            Err::<(), _>("slow")
        };
        let _ = backoff.asked(&9_999, slow);
        assert!(backoff.0.len() == MOST && backoff.0.contains_key(&9_999));
    }
}
