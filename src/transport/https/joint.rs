//! One long read that several threads do in pieces.

use std::ops::Range;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// A read in pieces. Everybody who takes part claims one piece after the other; a fault ends it.
pub struct Joint {
    offset: u64,
    len: usize,
    piece: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the next piece begins.
    next: usize,
    /// Pieces that helpers have claimed and not delivered.
    busy: usize,
    /// Pieces that were delivered and not collected, by their beginning.
    ready: Vec<(usize, Vec<u8>)>,
    error: Option<Error>,
    /// Where pieces go if nobody collects them.
    asked: Option<(Transfer, Finish)>,
}

/// Reads a piece: the buffer from the offset.
pub type Read<'a> = &'a dyn Fn(&mut [u8], u64) -> Result<()>;

impl Joint {
    /// A read whose pieces somebody collects with [`Joint::collect`].
    pub fn collected(offset: u64, len: usize, piece: usize) -> Joint {
        Joint { offset, len, piece: piece.max(1), state: Mutex::default(), changed: Condvar::new() }
    }

    /// A read that goes on by itself.
    pub fn asked(transfer: Transfer, finish: Finish, offset: u64, piece: usize) -> Joint {
        let joint = Self::collected(offset, transfer.len(), piece);
        joint.state.lock().asked = Some((transfer, finish));
        joint
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.len.div_ceil(self.piece)
    }

    /// Reads pieces until none is left.
    pub fn help(&self, read: Read<'_>) {
        while let Some(part) = self.claim(true) {
            let mut room = vec![0; part.len()];
            let result = read(&mut room, self.at(&part)).map(|()| room);
            self.deliver(part.start, result);
        }
    }

    /// Reads pieces into the buffer and collects those of the helpers, until all of it is there.
    pub fn collect(&self, buf: &mut [u8], read: Read<'_>) -> Result<()> {
        while let Some(part) = self.claim(false) {
            let at = self.at(&part);
            if let Some(Err(e)) = buf.get_mut(part).map(|to| read(to, at)) {
                self.fail(e);
            }
        }
        let mut state = self.state.lock();
        while state.busy > 0 {
            self.changed.wait(&mut state); // a read has an end, and so has a helper's
        }
        state.next = self.len; // helpers that come late find nothing to do, also after a fault
        let (ready, error) = (std::mem::take(&mut state.ready), state.error.take());
        drop(state);
        ready.into_iter().for_each(|(start, piece)| place(buf, start, &piece));
        error.map_or(Ok(()), Err)
    }

    /// Ends it with an error; pieces that are being read end by themselves.
    pub fn cancel(&self, error: Error) {
        self.fail(error);
        self.settle();
    }

    fn at(&self, part: &Range<usize>) -> u64 {
        self.offset.saturating_add(part.start as u64)
    }

    fn claim(&self, as_helper: bool) -> Option<Range<usize>> {
        let mut state = self.state.lock();
        if state.error.is_some() || state.next >= self.len {
            return None;
        }
        let part = state.next..self.len.min(state.next.saturating_add(self.piece));
        state.next = part.end;
        state.busy += usize::from(as_helper);
        Some(part)
    }

    fn fail(&self, error: Error) {
        self.state.lock().error.get_or_insert(error);
    }

    fn deliver(&self, start: usize, piece: Result<Vec<u8>>) {
        let mut state = self.state.lock();
        match (piece, &mut state.asked) {
            (Ok(piece), Some((transfer, _))) => {
                if let Some(buf) = transfer.to_fill() {
                    place(buf, start, &piece);
                }
            }
            (Ok(piece), None) => state.ready.push((start, piece)),
            (Err(e), _) => {
                state.error.get_or_insert(e);
            }
        }
        state.busy = state.busy.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
        self.settle();
    }

    /// Tells who asked, once nothing is under way.
    fn settle(&self) {
        let mut state = self.state.lock();
        let is_over = state.busy == 0 && (state.error.is_some() || state.next >= self.len);
        let asked = if is_over { state.asked.take() } else { None };
        let error = if asked.is_some() { state.error.take() } else { None };
        drop(state);
        if let Some((transfer, finish)) = asked {
            finish(transfer, error.map_or(Ok(()), Err));
        }
    }
}

/// A read that nobody finished is told, too.
impl Drop for Joint {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some((transfer, finish)) = state.asked.take() {
            let error = state
                .error
                .take()
                .unwrap_or_else(|| Error::new(ErrorKind::Cancelled, "the read was given up"));
            finish(transfer, Err(error));
        }
    }
}

impl std::fmt::Debug for Joint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joint").field("offset", &self.offset).field("len", &self.len).finish_non_exhaustive()
    }
}

fn place(buf: &mut [u8], start: usize, piece: &[u8]) {
    if let Some(to) = buf.get_mut(start..start.saturating_add(piece.len())) {
        to.copy_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    fn content(buf: &mut [u8], at: u64) -> Result<()> {
        buf.iter_mut().zip(at..).for_each(|(to, at)| *to = (at / 3) as u8);
        Ok(())
    }

    fn wanted(len: usize, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        content(&mut bytes, at).unwrap();
        bytes
    }

    #[test]
    fn every_piece_is_read_once_by_whoever_comes() {
        let joint = Joint::collected(1000, 777, 10);
        assert_eq!(joint.pieces(), 78);
        let mut buf = vec![0; 777];
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| joint.help(&content));
            }
            joint.collect(&mut buf, &content).unwrap();
        });
        assert!(buf == wanted(777, 1000));
    }

    #[test]
    fn a_fault_ends_it_for_all() {
        let joint = Joint::collected(0, 100, 10);
        let broken = |_: &mut [u8], at: u64| match at {
            50 => Err(Error::new(ErrorKind::Io, "broken")),
            _ => Ok(()),
        };
        let e = joint.collect(&mut [0; 100], &broken).unwrap_err();
        assert_eq!((e.kind(), joint.claim(true)), (ErrorKind::Io, None));
    }

    type Told = mpsc::Receiver<(Vec<u8>, Result<()>)>;

    fn asked(len: usize) -> (Arc<Joint>, Told) {
        let (tell, told) = mpsc::channel();
        let finish: Finish = Box::new(move |transfer, result| {
            let Transfer::ReadOwned(buf) = transfer else { return };
            tell.send((buf, result)).unwrap();
        });
        (Arc::new(Joint::asked(Transfer::ReadOwned(vec![0; len]), finish, 40, 16)), told)
    }

    #[test]
    fn a_read_that_goes_on_by_itself_is_told_once() {
        let (joint, told) = asked(100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| joint.help(&content));
            }
        });
        drop(joint);
        let (buf, result) = told.recv().unwrap();
        assert!(result.is_ok() && buf == wanted(100, 40) && told.recv().is_err());
    }

    #[test]
    fn a_read_that_is_cancelled_or_given_up_is_told_once() {
        let (joint, told) = asked(100);
        joint.cancel(Error::new(ErrorKind::Cancelled, "closing"));
        joint.help(&content);
        drop(joint);
        assert_eq!(told.recv().unwrap().1.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(told.recv().is_err());
        let (joint, told) = asked(100);
        drop(joint);
        assert_eq!(told.recv().unwrap().1.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
