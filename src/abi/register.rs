//! Connection parameter structures that were handed out and not freed.
//!
//! Programs allocate them before InitEx and free them after Exit, and a child of `fork` may free its parent's, so the register
//! belongs to no library. Its lock is held across a fork, by nobody for longer than a few instructions; nobody sleeps on it,
//! so that the child can let go of it without waking threads that it does not have.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::hint::spin_loop;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

/// Addresses of structures, each with those of the strings in it that are the library's.
type Structures = BTreeMap<usize, Vec<usize>>;

/// The register of a process.
pub struct Register {
    locked: AtomicBool,
    structures: UnsafeCell<Structures>,
}

/// The one register.
pub static REGISTER: Register = Register::new();

// SAFETY: `structures` is touched between `lock` and `unlock` only.
unsafe impl Sync for Register {}

impl Register {
    const fn new() -> Self {
        Self { locked: AtomicBool::new(false), structures: UnsafeCell::new(BTreeMap::new()) }
    }

    /// Keeps everybody else out.
    pub fn lock(&self) {
        let mut tries = 0_u32;
        while self.locked.swap(true, Ordering::Acquire) {
            tries += 1;
            if tries.is_multiple_of(64) { std::thread::yield_now() } else { spin_loop() }
        }
    }

    /// Lets others in. Only for who locked it.
    pub fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }

    fn with<T>(&self, body: impl FnOnce(&mut Structures) -> T) -> T {
        struct Unlock<'a>(&'a Register);
        impl Drop for Unlock<'_> {
            fn drop(&mut self) {
                self.0.unlock();
            }
        }
        self.lock();
        let _unlock = Unlock(self);
        // SAFETY: the lock is held, and `body` cannot keep the reference.
        body(unsafe { &mut *self.structures.get() })
    }

    /// Enters a structure, or says anew which strings in it are the library's.
    pub fn enter(&self, address: usize, strings: Vec<usize>) {
        self.with(|structures| structures.insert(address, strings));
    }

    /// True for a structure that was entered and not removed.
    pub fn knows(&self, address: usize) -> bool {
        self.with(|structures| structures.contains_key(&address))
    }

    /// Removes a structure and says which strings in it are the library's.
    pub fn remove(&self, address: usize) -> Option<Vec<usize>> {
        self.with(|structures| structures.remove(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns() {
        let register = Register::new();
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let register = &register;
                scope.spawn(move || {
                    for i in 0..2000 {
                        let address = thread * 10_000 + i;
                        register.enter(address, vec![i]);
                        assert!(register.knows(address));
                        assert_eq!(register.remove(address), Some(vec![i]));
                    }
                });
            }
        });
        assert!(register.with(|structures| structures.is_empty()));
    }
}
