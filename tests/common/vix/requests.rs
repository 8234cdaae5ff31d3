//! Asynchronous requests.

use std::ffi::c_void;
use std::sync::Condvar;
use std::sync::Mutex;

use super::code;
use super::disk::Disk;
use super::types::CompletionFn;
use super::types::Handle;

/// Collects completions of asynchronous requests.
#[derive(Debug, Default)]
pub struct Completions {
    done: Mutex<Vec<(u64, u64)>>,
    changed: Condvar,
}

struct Ticket {
    to: *const Completions,
    id: u64,
}

unsafe extern "C" fn on_completion(data: *mut c_void, result: u64) {
    // SAFETY: made by `submit` with Box::into_raw; a second call for the same request would free it twice, which the
    // sanitising runs and the count in the tests show.
    let ticket = unsafe { Box::from_raw(data.cast::<Ticket>()) };
    // SAFETY: the collector outlives its requests: every test waits before it goes.
    let completions = unsafe { &*ticket.to };
    completions.done.lock().expect("completions").push((ticket.id, result));
    completions.changed.notify_all();
}

impl Completions {
    /// The number of completions so far.
    pub fn count(&self) -> usize {
        self.done.lock().expect("completions").len()
    }

    /// Waits until there are at least `count`.
    pub fn wait_for(&self, count: usize) {
        let mut done = self.done.lock().expect("completions");
        while done.len() < count {
            done = self.changed.wait(done).expect("completions");
        }
    }

    /// Takes what is there: (id, result).
    pub fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.done.lock().expect("completions"))
    }
}

/// What a completion runs.
type Then = Box<dyn FnOnce(u64) + Send>;

unsafe extern "C" fn on_then(data: *mut c_void, result: u64) {
    // SAFETY: made by `read_async_then` with Box::into_raw; the library calls once.
    let then = unsafe { Box::from_raw(data.cast::<Then>()) };
    then(result);
}

impl Disk<'_> {
    /// Starts a read; `then` runs inside the callback.
    pub fn read_async_then(&self, start: u64, buf: &'static mut [u8], then: Then) -> u64 {
        let data = Box::into_raw(Box::new(then));
        let result = call!(
            self.vix,
            "ReadAsync",
            fn(Handle, u64, u64, *mut u8, CompletionFn, *mut c_void) -> u64,
            self.handle,
            start,
            buf.len() as u64 / 512,
            buf.as_mut_ptr(),
            on_then,
            data.cast()
        );
        if result != code::ASYNC {
            // SAFETY: refused, so the completion does not run and the box is still ours.
            drop(unsafe { Box::from_raw(data) });
        }
        result
    }

    /// Starts a read into a buffer that the caller keeps alive until the completion; anything but `ASYNC` is a refusal.
    ///
    /// # Safety
    /// `buf` and `completions` stay alive and unmoved until the completion or a refusal.
    pub unsafe fn read_async(
        &self,
        start: u64,
        buf: *mut u8,
        count: u64,
        id: u64,
        completions: &Completions,
    ) -> u64 {
        let ticket = Box::into_raw(Box::new(Ticket { to: completions, id }));
        let result = call!(
            self.vix,
            "ReadAsync",
            fn(Handle, u64, u64, *mut u8, CompletionFn, *mut c_void) -> u64,
            self.handle,
            start,
            count,
            buf,
            on_completion,
            ticket.cast()
        );
        if result != code::ASYNC {
            // SAFETY: refused, so the completion does not run and the ticket is still ours.
            drop(unsafe { Box::from_raw(ticket) });
        }
        result
    }

    /// Starts a write; see [`Disk::read_async`].
    ///
    /// # Safety
    /// As for [`Disk::read_async`].
    pub unsafe fn write_async(
        &self,
        start: u64,
        buf: *const u8,
        count: u64,
        id: u64,
        completions: &Completions,
    ) -> u64 {
        let ticket = Box::into_raw(Box::new(Ticket { to: completions, id }));
        let result = call!(
            self.vix,
            "WriteAsync",
            fn(Handle, u64, u64, *const u8, CompletionFn, *mut c_void) -> u64,
            self.handle,
            start,
            count,
            buf,
            on_completion,
            ticket.cast()
        );
        if result != code::ASYNC {
            // SAFETY: refused, so the completion does not run and the ticket is still ours.
            drop(unsafe { Box::from_raw(ticket) });
        }
        result
    }

    /// Writes parts `(start, bytes)` with at most `depth` in flight, and waits for all. The first code that is not `OK`.
    pub fn write_many(&self, parts: &[(u64, &[u8])], depth: usize) -> u64 {
        let completions = Completions::default();
        let (mut submitted, mut refused) = (0, code::OK);
        for (start, bytes) in parts {
            completions.wait_for((submitted + 1usize).saturating_sub(depth));
            let (count, id) = (bytes.len() as u64 / 512, submitted as u64);
            // SAFETY: the parts and the collector live to the end of this function, which waits for all.
            let result = unsafe { self.write_async(*start, bytes.as_ptr(), count, id, &completions) };
            if result != code::ASYNC {
                refused = result;
                break;
            }
            submitted += 1;
        }
        completions.wait_for(submitted);
        let done = completions.take();
        assert_eq!(done.len(), submitted, "each request completes exactly once");
        let failed = done.into_iter().map(|(_, result)| result).find(|result| *result != code::OK);
        failed.unwrap_or(refused)
    }

    /// Reads pieces `(start, count)` with at most `depth` in flight, each into its place of the result in order;
    /// `misalign` shifts the buffer in memory. The first failing code is the error.
    pub fn read_many(&self, pieces: &[(u64, u64)], depth: usize, misalign: usize) -> Result<Vec<u8>, u64> {
        let total: u64 = pieces.iter().map(|(_, count)| count * 512).sum();
        let mut buf = vec![0xA5u8; total as usize + misalign];
        let base = buf.as_mut_ptr();
        let completions = Completions::default();
        let (mut at, mut submitted, mut refused) = (misalign, 0usize, code::OK);
        for (id, (start, count)) in pieces.iter().enumerate() {
            if submitted >= depth {
                completions.wait_for(submitted + 1 - depth);
            }
            // SAFETY: disjoint pieces of a buffer that lives to the end of this function, which waits for all.
            let result = unsafe { self.read_async(*start, base.add(at), *count, id as u64, &completions) };
            if result != code::ASYNC {
                refused = result;
                break;
            }
            submitted += 1;
            at += (*count * 512) as usize;
        }
        completions.wait_for(submitted);
        let waited = self.wait(); // fails on a handle that went away meanwhile
        let done = completions.take();
        assert_eq!(done.len(), submitted, "each request completes exactly once");
        let mut ids: Vec<u64> = done.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..submitted as u64), "each request completes exactly once");
        if refused != code::OK {
            return Err(refused);
        }
        if waited != code::OK {
            return Err(waited);
        }
        if let Some((_, failed)) = done.iter().find(|(_, result)| *result != code::OK) {
            return Err(*failed);
        }
        buf.drain(..misalign);
        Ok(buf)
    }
}
