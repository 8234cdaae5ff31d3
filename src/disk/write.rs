//! Writing to the leaf: in place where it has data, into reserved grains where it has none.

use std::ops::Range;

use crate::disk::Disk;
use crate::disk::link::Piece;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::format::Mapping;
use crate::format::Pending;
use crate::storage::Copied;
use crate::storage::Storage;

/// Grains whose rest comes from a parent are put together in memory up to this size, so that one write carries them.
const ASSEMBLE: u64 = 1 << 20;

impl Disk {
    /// Writes `buf` at `offset`. On success the data survives the end of the process (on a child within a second, see
    /// [`Disk::publish`]); on failure each sector of the range holds its old or its new content.
    pub fn write(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.check_writable()?;
        self.check_range(offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        self.mark_changed()?;
        let mut at = 0;
        while at < buf.len() {
            let here = offset + at as u64;
            let piece = self.leaf().piece(here);
            let room = usize::try_from(piece.end() - here).unwrap_or(usize::MAX);
            let part = &buf[at..at + room.min(buf.len() - at)];
            at += self.write_piece(piece, part, here).context(|| {
                format!("writing {} bytes at {here:#x} of {}", part.len(), self.leaf().label())
            })?;
        }
        Ok(())
    }

    /// Writes the first run of `data`, all of which lies in `piece`; says how many bytes that was.
    fn write_piece(&self, piece: &Piece, data: &[u8], offset: u64) -> Result<usize> {
        let inner = offset - piece.start();
        let (mapping, run) = piece.image().map(inner, data.len() as u64)?;
        let part = &data[..usize::try_from(run).unwrap_or(usize::MAX).min(data.len())];
        match mapping {
            Mapping::Data { storage, offset } => {
                piece.begin()?;
                storage.write_at(part, offset)?;
                Ok(part.len())
            }
            Mapping::Zero => self.allocate(piece, part, inner, false),
            Mapping::Unallocated => self.allocate(piece, part, inner, true),
            Mapping::Packed => Err(Error::new(ErrorKind::ReadOnly, "compressed grains cannot be rewritten")),
        }
    }

    /// Writes the first run of `len` bytes that stand at `from` of a storage to `offset`; says how many bytes that was, and how
    /// the system copied them if it did. As durable as [`Disk::write`].
    pub(super) fn take(
        &self,
        source: &dyn Storage,
        from: u64,
        len: u64,
        offset: u64,
    ) -> Result<(u64, Option<Copied>)> {
        if !self.writable {
            return Err(Error::new(ErrorKind::ReadOnly, "the disk is open read-only"));
        }
        self.check_range(offset, usize::try_from(len).unwrap_or(usize::MAX))?;
        self.mark_changed()?;
        let piece = self.leaf().piece(offset);
        let inner = offset - piece.start();
        let len = len.min(piece.end() - offset);
        let image = piece.image();
        let (mapping, run) = image.map(inner, len)?;
        let len = len.min(run);
        match mapping {
            Mapping::Data { storage, offset } => {
                piece.begin()?;
                return Ok((len, Some(storage.copy_from(offset, source, from..from + len)?)));
            }
            Mapping::Zero | Mapping::Unallocated if !self.is_child => {
                piece.begin()?;
                let Some(pending) = image.prepare(inner, len)? else { return Ok((0, None)) };
                if pending.grains.start == inner && (pending.grains.end <= inner + len || pending.zeroed) {
                    return self.take_grains(piece, pending, source, from, len);
                }
                image.abandon(pending);
            }
            _ => {}
        }
        let mut bytes = vec![0; usize::try_from(len.min(ASSEMBLE)).unwrap_or(0)];
        source.read_at(&mut bytes, from)?;
        self.write(&bytes, offset)?;
        Ok((bytes.len() as u64, None))
    }

    /// [`Disk::take`] into new grains that begin where the data does.
    fn take_grains(
        &self,
        piece: &Piece,
        pending: Pending<'_>,
        source: &dyn Storage,
        from: u64,
        len: u64,
    ) -> Result<(u64, Option<Copied>)> {
        let grains = pending.grains.clone();
        let len = len.min(grains.end - grains.start);
        match pending.storage.copy_from(pending.offset, source, from..from + len) {
            Ok(copied) => {
                piece.image().commit(pending, self.is_child)?;
                self.owners.forget(piece.start() + grains.start..piece.start() + grains.end);
                Ok((len, Some(copied)))
            }
            Err(e) => {
                piece.image().abandon(pending);
                Err(e)
            }
        }
    }

    /// Writes into new grains. `inherits`: what is not written shows the parent's content, else zeros.
    fn allocate(&self, piece: &Piece, data: &[u8], inner: u64, inherits: bool) -> Result<usize> {
        let inherits = inherits && self.is_child;
        if !inherits && data.iter().all(|byte| *byte == 0) {
            return Ok(data.len()); // it reads as zeros already
        }
        piece.begin()?;
        let Some(pending) = piece.image().prepare(inner, data.len() as u64)? else { return Ok(0) };
        let end = pending.grains.end.min(inner + data.len() as u64);
        let data = &data[..usize::try_from(end - inner).unwrap_or(0)];
        match self.fill_grains(piece, &pending, data, inner, inherits) {
            Ok(()) => {
                let disk_range = piece.start() + pending.grains.start..piece.start() + pending.grains.end;
                piece.image().commit(pending, self.is_child)?;
                self.owners.forget(disk_range);
                Ok(data.len())
            }
            Err(e) => {
                piece.image().abandon(pending);
                Err(e)
            }
        }
    }

    /// Gives the reserved grains their content: `data` at `inner`, around it the parent's content or zeros.
    fn fill_grains(
        &self,
        piece: &Piece,
        pending: &Pending<'_>,
        data: &[u8],
        inner: u64,
        inherits: bool,
    ) -> Result<()> {
        let grains = &pending.grains;
        let end = inner + data.len() as u64;
        let (head, tail) = (grains.start..inner, end..grains.end);
        let place = |at: u64| pending.offset + (at - grains.start);
        if (!inherits && pending.zeroed) || (head.is_empty() && tail.is_empty()) {
            return pending.storage.write_at(data, place(inner));
        }
        if grains.end - grains.start <= ASSEMBLE {
            let mut whole = self.surroundings(piece, head, inherits)?;
            whole.extend_from_slice(data);
            whole.extend(self.surroundings(piece, tail, inherits)?);
            return pending.storage.write_at(&whole, pending.offset);
        }
        for part in [head, tail] {
            let at = place(part.start);
            pending.storage.write_at(&self.surroundings(piece, part, inherits)?, at)?;
        }
        pending.storage.write_at(data, place(inner))
    }

    /// The content of a part of a new grain that the caller does not write.
    fn surroundings(&self, piece: &Piece, part: Range<u64>, inherits: bool) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
        let inside = part.end.min(piece.end() - piece.start());
        if !inherits || part.start >= inside {
            return Ok(bytes);
        }
        if self.links.len() == 1 {
            return Err(Error::new(
                ErrorKind::PartialChain,
                "a part of a grain of a child needs its parent, which is not open (single link)",
            ));
        }
        let known = usize::try_from(inside - part.start).unwrap_or(0);
        self.read_below_leaf(&mut bytes[..known], piece.start() + part.start)?;
        Ok(bytes)
    }
}
