//! A bounded queue between two threads. The sender never waits, and can wake the receiver
//! without an item.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The capacity of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Number of items.
    pub most: usize,
    /// The sum of what they cost.
    pub cost: usize,
}

/// Why an item could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full.
    Full,
    /// The receiver was dropped.
    Gone,
}

/// What the receiver gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// An item.
    One(T),
    /// No item: the time is over, or the sender woke it.
    Nothing,
    /// No more items will follow.
    End,
}

/// The sending end. After it is dropped, the receiver still gets what is queued.
pub struct Sender<T>(Arc<Queue<T>>);

/// The receiving end.
pub struct Receiver<T>(Arc<Queue<T>>);

/// Creates a queue.
pub fn queue<T>(budget: Budget) -> (Sender<T>, Receiver<T>) {
    let state = State {
        waiting: VecDeque::new(),
        cost: 0,
        told: false,
        sender_is_gone: false,
        receiver_is_gone: false,
    };
    let queue = Arc::new(Queue { budget, state: Mutex::new(state), changed: Condvar::new() });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

struct Queue<T> {
    budget: Budget,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<(T, usize)>,
    cost: usize,
    told: bool,
    sender_is_gone: bool,
    receiver_is_gone: bool,
}

impl<T> Queue<T> {
    /// Nothing panics under the lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Queues one, if there is space.
    ///
    /// # Errors
    /// The queue is full, or the receiver was dropped.
    pub fn offer(&self, one: T, cost: usize) -> Result<(), Refused> {
        let Budget { most, cost: most_cost } = self.0.budget;
        let mut state = self.0.lock();
        if state.receiver_is_gone {
            return Err(Refused::Gone);
        }
        if state.waiting.len() >= most || cost > most_cost.saturating_sub(state.cost) {
            return Err(Refused::Full);
        }
        state.cost += cost;
        state.waiting.push_back((one, cost));
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Wakes the receiver. Several calls count as one, and take no space.
    pub fn tell(&self) {
        self.0.lock().told = true;
        self.0.changed.notify_one();
    }
}

impl<T> Receiver<T> {
    /// Returns what comes next. Waits until this time, or without limit.
    pub fn next(&self, until: Option<Instant>) -> Next<T> {
        let mut state = self.0.lock();
        loop {
            if let Some((one, cost)) = state.waiting.pop_front() {
                state.cost -= cost;
                return Next::One(one);
            }
            if state.sender_is_gone {
                return Next::End;
            }
            if std::mem::take(&mut state.told) {
                return Next::Nothing;
            }
            state = match until {
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Next::Nothing;
                    }
                    let waited = self.0.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().sender_is_gone = true;
        self.0.changed.notify_one();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_is_gone = true;
        let unwanted = std::mem::take(&mut state.waiting);
        drop(state);
        drop(unwanted);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BUDGET: Budget = Budget { most: 3, cost: 10 };

    #[test]
    fn number_and_cost_are_bounded() {
        let (sender, receiver) = queue(BUDGET);
        assert_eq!(sender.offer('x', 11), Err(Refused::Full), "it would never fit");
        assert_eq!(sender.offer('a', 6), Ok(()));
        assert_eq!(sender.offer('b', 5), Err(Refused::Full));
        assert_eq!([sender.offer('c', 1), sender.offer('d', 1)], [Ok(()), Ok(())]);
        assert_eq!(sender.offer('e', 1), Err(Refused::Full));
        assert_eq!(receiver.next(None), Next::One('a'));
        assert_eq!(sender.offer('f', 8), Ok(()), "there is room again");
        drop(sender);
        assert_eq!([receiver.next(None), receiver.next(None)], [Next::One('c'), Next::One('d')]);
        assert_eq!([receiver.next(None), receiver.next(None)], [Next::One('f'), Next::End]);
    }

    #[test]
    fn who_is_told_looks_up_once() {
        let (sender, receiver) = queue(BUDGET);
        sender.tell();
        sender.tell();
        sender.offer('a', 1).unwrap();
        assert_eq!(receiver.next(None), Next::One('a'));
        assert_eq!(receiver.next(None), Next::Nothing);
        let soon = Instant::now() + Duration::from_millis(1);
        assert_eq!(receiver.next(Some(soon)), Next::Nothing);
        assert!(Instant::now() >= soon);
    }

    #[test]
    fn nobody_takes_it() {
        let (sender, receiver) = queue(BUDGET);
        drop(receiver);
        assert_eq!(sender.offer('a', 1), Err(Refused::Gone));
    }
}
