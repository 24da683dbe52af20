//! A bounded queue between two threads. The sender never waits, and can wake the receiver
//! without an item.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
        mpsc::{self, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Instant,
};

/// The capacity of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Number of items.
    pub most: usize,
    /// The sum of their costs.
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

/// The sending end. When it is dropped, the queued items can still be received.
pub struct Sender<T> {
    to: SyncSender<Option<(T, usize)>>,
    budget: Budget,
    waiting: Arc<Waiting>,
}

/// The receiving end.
pub struct Receiver<T> {
    from: mpsc::Receiver<Option<(T, usize)>>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    number: AtomicUsize,
    cost: AtomicUsize,
    /// Whether the receiver was woken and has not noticed it yet.
    told: AtomicBool,
    /// Whether the receiver was dropped.
    gone: AtomicBool,
}

/// Creates a queue.
pub fn queue<T>(budget: Budget) -> (Sender<T>, Receiver<T>) {
    // One more, for a receiver that is woken without an item.
    let (to, from) = sync_channel(budget.most + 1);
    let waiting = Arc::new(Waiting::default());
    (Sender { to, budget, waiting: Arc::clone(&waiting) }, Receiver { from, waiting })
}

impl Waiting {
    fn take_back(&self, cost: usize) {
        self.number.fetch_sub(1, AcqRel);
        self.cost.fetch_sub(cost, AcqRel);
    }
}

impl<T> Sender<T> {
    /// Queues an item, if there is space.
    ///
    /// # Errors
    /// The queue is full, or the receiver was dropped.
    pub fn offer(&self, one: T, cost: usize) -> Result<(), Refused> {
        let Self { to, budget, waiting } = self;
        if waiting.gone.load(Acquire) {
            return Err(Refused::Gone);
        }
        let number = waiting.number.fetch_add(1, AcqRel);
        let left = budget.cost.saturating_sub(waiting.cost.fetch_add(cost, AcqRel));
        let refused = match number >= budget.most || cost > left {
            true => Refused::Full,
            false => match to.try_send(Some((one, cost))) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => Refused::Full,
                Err(TrySendError::Disconnected(_)) => Refused::Gone,
            },
        };
        waiting.take_back(cost);
        Err(refused)
    }

    /// Wakes the receiver. Several calls count as one, and take no space.
    pub fn tell(&self) {
        if !self.waiting.told.swap(true, AcqRel) {
            // Either there is space for it, or the receiver was dropped.
            let _ = self.to.try_send(None);
        }
    }
}

impl<T> Receiver<T> {
    /// Returns the next item. Waits until this time, or without limit.
    pub fn next(&self, until: Option<Instant>) -> Next<T> {
        let next = match until {
            None => self.from.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => self.from.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(Some((one, cost))) => {
                self.waiting.take_back(cost);
                Next::One(one)
            }
            Ok(None) => {
                self.waiting.told.swap(false, AcqRel);
                Next::Nothing
            }
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }
}

impl<T> Drop for Receiver<T> {
    /// Marks the receiver as dropped: without the mark a full queue would only be full.
    fn drop(&mut self) {
        self.waiting.gone.store(true, Release);
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
        assert_eq!(receiver.next(None), Next::Nothing);
        assert_eq!(receiver.next(None), Next::One('a'));
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
