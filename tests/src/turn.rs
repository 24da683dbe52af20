//! Which tests run at the same time. The agent watches the whole machine in one queue, so a
//! test that floods it would delay all others: such a test runs alone.

use std::sync::{Condvar, Mutex, MutexGuard};

static TURNS: Mutex<Turns> = Mutex::new(Turns { together: 0, alone: false });
static CHANGED: Condvar = Condvar::new();

struct Turns {
    together: u32,
    alone: bool,
}

/// A turn, until it is dropped.
pub struct Turn {
    alone: bool,
}

impl Turn {
    /// Together with others. A test may take several.
    #[must_use]
    pub fn together() -> Self {
        wait_while(|turns| turns.alone).together += 1;
        Self { alone: false }
    }

    /// When nobody else has one, and none is granted meanwhile. It has no preference over
    /// others, so that a test that takes a second turn for itself can get it; the others come
    /// to an end.
    #[must_use]
    pub fn alone() -> Self {
        wait_while(|turns| turns.alone || turns.together > 0).alone = true;
        Self { alone: true }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = lock();
        if self.alone {
            turns.alone = false
        } else {
            turns.together -= 1
        }
        CHANGED.notify_all();
    }
}

fn wait_while(held_up: impl Fn(&Turns) -> bool) -> MutexGuard<'static, Turns> {
    let held_up = |turns: &mut Turns| held_up(turns);
    CHANGED.wait_while(lock(), held_up).unwrap_or_else(|e| e.into_inner())
}

/// The counts are correct even after a test has panicked.
fn lock() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(|e| e.into_inner())
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn alone_excludes_all_others() {
        let alone = Turn::alone();
        let other = thread::spawn(|| {
            let _first = Turn::together();
            let _second = Turn::together();
        });
        thread::sleep(Duration::from_millis(20));
        assert!(!other.is_finished());
        drop(alone);
        other.join().unwrap();
    }
}
