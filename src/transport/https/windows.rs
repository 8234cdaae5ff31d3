//! Small reads of a far file, served from larger ones: tables, descriptors, and grains that stand close together because
//! they were written together.

use std::sync::Arc;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::error::{Error, ErrorKind, Result};

/// Parts of a file that were read.
#[derive(Debug, Default)]
pub struct Windows {
    /// Never held while anything is read.
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    windows: Vec<Window>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Window {
    number: u64,
    used: u64,
    /// `None`: it is on its way.
    content: Option<Arc<Vec<u8>>>,
}

/// Bytes of a window.
pub const WINDOW: u64 = 64 << 10;
/// Reads up to this length are served from windows.
pub const SMALL: usize = 32 << 10;
/// Windows of one file: 4 MiB.
const MOST: usize = 64;

impl Windows {
    /// Fills `buf` from `at` of a file of `len` bytes, in which it lies; `read` fills a buffer from an offset of the file.
    pub fn serve(
        &self,
        buf: &mut [u8],
        at: u64,
        len: u64,
        read: &dyn Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let here = at + done as u64;
            let number = here / WINDOW;
            let content = self.window(number, len, read)?;
            let from = usize::try_from(here - number * WINDOW).unwrap_or(usize::MAX);
            let Some(part) = content.get(from..).filter(|part| !part.is_empty()) else {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("{here:#x} lies behind the file of {len} bytes"),
                ));
            };
            let count = part.len().min(rest.len());
            rest.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            done += count;
        }
        Ok(())
    }

    /// A window's content. Who comes while it is on its way waits for it.
    fn window(
        &self,
        number: u64,
        len: u64,
        read: &dyn Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<Arc<Vec<u8>>> {
        let mut state = self.state.lock();
        loop {
            state.clock += 1;
            let now = state.clock;
            match state.windows.iter_mut().find(|window| window.number == number) {
                Some(Window { content: Some(content), used, .. }) => {
                    *used = now;
                    return Ok(Arc::clone(content));
                }
                Some(_) => self.came.wait(&mut state), // a read has an end: see `Coming`
                None => break,
            }
        }
        self.load(state, number, len, read)
    }

    fn load(
        &self,
        mut state: MutexGuard<'_, State>,
        number: u64,
        len: u64,
        read: &dyn Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<Arc<Vec<u8>>> {
        state.make_room();
        let used = state.clock;
        state.windows.push(Window { number, used, content: None });
        drop(state);
        let mut coming = Coming { windows: self, number, content: None };
        let start = number.saturating_mul(WINDOW);
        let size = usize::try_from(len.saturating_sub(start).min(WINDOW)).unwrap_or(0);
        let mut bytes = vec![0; size];
        read(&mut bytes, start)?;
        let content = Arc::new(bytes);
        coming.content = Some(Arc::clone(&content));
        Ok(content)
    }
}

impl State {
    /// Forgets the windows that were not used for the longest time.
    fn make_room(&mut self) {
        while self.windows.len() >= MOST {
            let here = self.windows.iter().enumerate().filter(|(_, window)| window.content.is_some());
            let Some((oldest, _)) = here.min_by_key(|(_, window)| window.used) else { return };
            self.windows.swap_remove(oldest);
        }
    }
}

/// Ends a read whatever happens, so that nobody waits for ever.
struct Coming<'a> {
    windows: &'a Windows,
    number: u64,
    content: Option<Arc<Vec<u8>>>,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut state = self.windows.state.lock();
        match self.content.take() {
            Some(content) => {
                if let Some(window) = state.windows.iter_mut().find(|window| window.number == self.number) {
                    window.content = Some(content);
                }
            }
            // Who waited for it reads it himself, and gets the error.
            None => state.windows.retain(|window| window.number != self.number),
        }
        drop(state);
        self.windows.came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    fn byte(at: u64) -> u8 {
        (at / 7 + at / WINDOW * 31) as u8
    }

    fn fill(buf: &mut [u8], at: u64) {
        buf.iter_mut().zip(at..).for_each(|(to, at)| *to = byte(at));
    }

    fn expect(
        windows: &Windows,
        at: u64,
        len: usize,
        size: u64,
        read: &dyn Fn(&mut [u8], u64) -> Result<()>,
    ) {
        let (mut got, mut wanted) = (vec![0; len], vec![0; len]);
        windows.serve(&mut got, at, size, read).unwrap();
        fill(&mut wanted, at);
        assert!(got == wanted, "{len} bytes at {at}");
    }

    #[test]
    fn neighbours_are_read_once_and_the_last_window_ends_with_the_file() {
        let reads = Mutex::new(Vec::new());
        let read = |buf: &mut [u8], at: u64| {
            reads.lock().push((at, buf.len()));
            fill(buf, at);
            Ok(())
        };
        let (windows, size) = (Windows::default(), 2 * WINDOW + 100);
        expect(&windows, 5, 10, size, &read);
        expect(&windows, WINDOW - 3, 6, size, &read);
        expect(&windows, 2 * WINDOW + 90, 10, size, &read);
        expect(&windows, WINDOW, 1000, size, &read);
        let whole = WINDOW as usize;
        assert_eq!(*reads.lock(), [(0, whole), (WINDOW, whole), (2 * WINDOW, 100)]);
    }

    #[test]
    fn what_was_not_used_for_long_is_forgotten_first() {
        let reads = AtomicUsize::new(0);
        let read = |buf: &mut [u8], at: u64| {
            reads.fetch_add(1, Ordering::SeqCst);
            fill(buf, at);
            Ok(())
        };
        let windows = Windows::default();
        let size = 1000 * WINDOW;
        for n in 0..MOST as u64 * 3 {
            expect(&windows, n * WINDOW + 1, 8, size, &read);
            expect(&windows, 1, 8, size, &read);
        }
        assert_eq!(reads.load(Ordering::SeqCst), MOST * 3, "the first one was used all the time");
        assert!(windows.state.lock().windows.len() <= MOST);
        expect(&windows, WINDOW, 8, size, &read);
        assert_eq!(reads.load(Ordering::SeqCst), MOST * 3 + 1);
    }

    #[test]
    fn a_failed_read_is_told_and_not_remembered() {
        let windows = Windows::default();
        let broken = |_: &mut [u8], _: u64| Err(Error::new(ErrorKind::ConnectionLost, "lost"));
        let lost = windows.serve(&mut [0; 9], 0, 100, &broken).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::ConnectionLost);
        expect(&windows, 0, 9, 100, &|buf, at| {
            fill(buf, at);
            Ok(())
        });
    }

    #[test]
    fn many_who_want_the_same_window_cause_one_read() {
        let (windows, reads) = (Windows::default(), AtomicUsize::new(0));
        let together = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    expect(&windows, 17, 100, 10_000, &|buf, at| {
                        reads.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        fill(buf, at);
                        Ok(())
                    });
                });
            }
        });
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }
}
