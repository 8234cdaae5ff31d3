//! Who is inside a disk: calls that use it, and asynchronous requests that are not complete.
//!
//! One word per counter; entering and leaving cost an atomic addition. Only somebody who waits for zero takes the lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Condvar;
use parking_lot::Mutex;

/// A counter that can be waited for and closed.
#[derive(Debug, Default)]
pub struct Gate {
    /// Users inside; the top bits say that no more may enter, ever or at the moment.
    state: AtomicU32,
    /// Those who wait for zero. With `state` in one total order, so that either the last one to leave sees the waiter or
    /// the waiter sees zero.
    waiting: AtomicU32,
    /// Protects nothing but the sleep of those who wait for zero.
    lock: Mutex<()>,
    zero: Condvar,
}

const CLOSED: u32 = 1 << 31;
const PAUSED: u32 = 1 << 30;
const INSIDE: u32 = PAUSED - 1;

impl Gate {
    /// Enters. `false`: it is closed or paused.
    #[inline]
    pub fn enter(&self) -> bool {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        if before & (CLOSED | PAUSED) != 0 {
            self.leave();
            return false;
        }
        true
    }

    /// Leaves after a successful [`Gate::enter`].
    #[inline]
    pub fn leave(&self) {
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        if (before & INSIDE == 1 || before & PAUSED != 0) && self.waiting.load(Ordering::SeqCst) > 0 {
            self.announce();
        }
    }

    #[cold]
    fn announce(&self) {
        // Taking the lock orders this against a waiter between its look at the counter and its sleep.
        drop(self.lock.lock());
        self.zero.notify_all();
    }

    /// Sleeps until nobody is inside.
    pub fn wait_until_empty(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock();
        while self.state.load(Ordering::SeqCst) & INSIDE != 0 {
            self.zero.wait(&mut guard);
        }
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Like [`Gate::wait_until_empty`], but not for longer than `time`. True when nobody is inside.
    pub fn wait_until_empty_for(&self, time: Duration) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock();
        let mut inside = |_: &mut ()| self.state.load(Ordering::SeqCst) & INSIDE != 0;
        let late = self.zero.wait_while_for(&mut guard, &mut inside, time).timed_out();
        let empty = !late || self.state.load(Ordering::SeqCst) & INSIDE == 0;
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        empty
    }

    /// Lets nobody in from now on. `false`: it was closed before.
    pub fn close(&self) -> bool {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    /// Lets nobody in until the result is dropped, and waits until the caller, who is inside, is alone there. `None`: it is
    /// closed or paused already.
    pub fn pause(&self) -> Option<Pause<'_>> {
        if self.state.fetch_or(PAUSED, Ordering::SeqCst) & (CLOSED | PAUSED) != 0 {
            // A pause that was there before stays; one that was set on a closed gate disturbs nobody.
            return None;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.lock.lock();
        while self.state.load(Ordering::SeqCst) & INSIDE > 1 {
            self.zero.wait(&mut guard);
        }
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Some(Pause(self))
    }

    /// True while somebody holds a [`Pause`].
    pub fn is_paused(&self) -> bool {
        self.state.load(Ordering::Acquire) & (CLOSED | PAUSED) == PAUSED
    }

    /// How many are inside.
    pub fn inside(&self) -> u32 {
        self.state.load(Ordering::Acquire) & INSIDE
    }
}

/// While it lives, nobody enters the gate.
#[derive(Debug)]
pub struct Pause<'a>(&'a Gate);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!PAUSED, Ordering::AcqRel);
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
    fn a_paused_gate_is_the_callers_alone() {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter() && gate.enter());
        let other = gate.clone();
        let leaver = std::thread::spawn(move || other.leave());
        let pause = gate.pause().unwrap();
        assert_eq!(gate.inside(), 1);
        assert!(!gate.enter() && gate.is_paused() && gate.pause().is_none());
        drop(pause);
        leaver.join().unwrap();
        assert!(gate.enter() && !gate.is_paused());
        gate.leave();
        gate.leave();
        assert!(gate.close() && gate.pause().is_none() && !gate.is_paused());
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
