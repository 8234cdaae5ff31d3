//! Reading ahead on a disk whose storage transfers by itself: without a thread, and with as many parts under way as a
//! distant peer needs to be kept busy.

use std::collections::VecDeque;
use std::sync::mpsc;

use crate::disk::Disk;
use crate::disk::copy::CHUNK;
use crate::disk::copy::walk::Walk;
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::Finish;
use crate::transfer::Transfer;

/// Parts under way: 1 GB/s over 15 ms.
const DEPTH: usize = 16;

/// A walk over the data of a disk, with the data.
pub(super) struct Flight<'a> {
    source: &'a Disk,
    walk: Walk,
    /// In the order of the disk.
    parts: VecDeque<Part>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

/// A part under way.
struct Part {
    offset: u64,
    ended: mpsc::Receiver<(Transfer, Result<()>)>,
}

impl<'a> Flight<'a> {
    /// From `start` on; see [`Walk::new`].
    pub fn new(source: &'a Disk, start: u64) -> Self {
        let walk = Walk::new(source, start, CHUNK as u64);
        Self { source, walk, parts: VecDeque::with_capacity(DEPTH), spare: Vec::new() }
    }

    /// The next part and where it stands; an empty one says that there was nothing up to there. `None`: there is no more.
    pub fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>> {
        while self.parts.len() < DEPTH
            && let Some(range) = self.walk.next(self.source)?
        {
            let mut buf = self.spare.pop().unwrap_or_default();
            buf.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0); // at most a chunk
            self.launch(range.start, buf);
        }
        let Some(part) = self.parts.pop_front() else { return Ok(None) };
        match part.ended.recv() {
            Ok((Transfer::ReadOwned(buf), result)) => result.map(|()| Some((part.offset, buf))),
            _ => Err(Error::new(ErrorKind::Internal, "a defect: a read ended without its buffer")),
        }
    }

    fn launch(&mut self, offset: u64, buf: Vec<u8>) {
        let (tell, ended) = mpsc::sync_channel(1);
        let finish: Finish = Box::new(move |transfer, result| {
            let _ = tell.send((transfer, result)); // nobody listens after a fault elsewhere
        });
        if let Some((mut transfer, finish)) = self.source.start(Transfer::ReadOwned(buf), offset, finish) {
            let result = match transfer.to_fill() {
                Some(buf) => self.source.read(buf, offset),
                None => Ok(()),
            };
            finish(transfer, result);
        }
        self.parts.push_back(Part { offset, ended });
    }

    /// Takes a buffer that is not needed any more.
    pub fn give_back(&mut self, buf: Vec<u8>) {
        self.spare.push(buf); // there are never more than were under way
    }
}
