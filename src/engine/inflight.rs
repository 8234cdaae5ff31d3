//! Who is inside a disk: calls that use it, and asynchronous requests that are not complete.
//!
//! One word per counter; entering and leaving cost an atomic addition. Only somebody who waits for zero takes the lock.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Condvar;
use parking_lot::Mutex;

/// A counter that can be waited for and closed.
#[derive(Debug, Default)]
pub struct Gate {
    /// Users inside; the top bit says that no more may enter.
    state: AtomicU32,
    /// Those who wait for zero. With `state` in one total order, so that either the last one to leave sees the waiter or
    /// the waiter sees zero.
    waiting: AtomicU32,
    /// Protects nothing but the sleep of those who wait for zero.
    lock: Mutex<()>,
    zero: Condvar,
}

const CLOSED: u32 = 1 << 31;

impl Gate {
    /// Enters. `false`: it is closed.
    #[inline]
    pub fn enter(&self) -> bool {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        if before & CLOSED != 0 {
            self.leave();
            return false;
        }
        true
    }

    /// Leaves after a successful [`Gate::enter`].
    #[inline]
    pub fn leave(&self) {
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        if before & !CLOSED == 1 && self.waiting.load(Ordering::SeqCst) > 0 {
            self.announce_zero();
        }
    }

    #[cold]
    fn announce_zero(&self) {
        // Taking the lock orders this against a waiter between its look at the counter and its sleep.
        drop(self.lock.lock());
        self.zero.notify_all();
    }

    /// Sleeps until nobody is inside.
    pub fn wait_until_empty(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock();
        while self.state.load(Ordering::SeqCst) & !CLOSED != 0 {
            self.zero.wait(&mut guard);
        }
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Lets nobody in from now on. `false`: it was closed before.
    pub fn close(&self) -> bool {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    /// How many are inside.
    pub fn inside(&self) -> u32 {
        self.state.load(Ordering::Acquire) & !CLOSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_closed_gate_lets_nobody_in_and_closes_once() {
        let gate = Gate::default();
        assert!(gate.enter());
        assert!(gate.close());
        assert!(!gate.close());
        assert!(!gate.enter());
        assert_eq!(gate.inside(), 1);
        gate.leave();
        gate.wait_until_empty();
    }

    #[test]
    fn waiting_ends_when_the_last_one_leaves() {
        let gate = Arc::new(Gate::default());
        for _ in 0..200 {
            (0..4).for_each(|_| assert!(gate.enter()));
            let leavers: Vec<_> = (0..4)
                .map(|_| {
                    let gate = gate.clone();
                    std::thread::spawn(move || gate.leave())
                })
                .collect();
            gate.wait_until_empty();
            assert_eq!(gate.inside(), 0);
            leavers.into_iter().for_each(|t| t.join().unwrap());
        }
    }
}
