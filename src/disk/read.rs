//! Reading: who has the bytes, then the bytes; neighbours in one storage are fetched together.

use crate::disk::Disk;
use crate::disk::link::Link;
use crate::disk::owner::CELL;
use crate::disk::owner::Owner;
use crate::disk::owner::OwnerIndex;
use crate::error::{Context, Result};
use crate::format::Mapping;
use crate::format::Presence;
use crate::storage::Storage;

/// Where a run of the disk comes from, the chain resolved.
pub(super) enum Source<'a> {
    /// Bytes of a storage.
    Data { storage: &'a dyn Storage, offset: u64, link: &'a Link },
    /// Zeros.
    Zero,
    /// Compressed data of a link.
    Packed(&'a Link),
}

/// A part of the buffer that waits to be read in one piece.
struct Waiting<'a> {
    storage: &'a dyn Storage,
    offset: u64,
    link: &'a Link,
    at: usize,
    len: usize,
}

/// Whether a read may wait for a device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Wait,
    Hurry,
}

impl Disk {
    /// Fills `buf` from `offset`. Nothing is delivered for a range that is not inside the disk; a failed read leaves the
    /// buffer undefined.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check_range(offset, buf.len())?;
        self.read_runs(buf, offset, Patience::Wait).map(|_| ())
    }

    /// Like [`Disk::read`] if that needs no waiting for a device and no long work. `Ok(false)`: it would.
    pub fn try_read(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        self.check_range(offset, buf.len())?;
        self.try_read_inside(buf, offset)
    }

    /// [`Disk::try_read`] for a range that passed [`Disk::check_range`].
    #[inline]
    pub fn try_read_inside(&self, buf: &mut [u8], offset: u64) -> Result<bool> {
        self.read_runs(buf, offset, Patience::Hurry)
    }

    /// Most small requests lie in one run: they need none of the bookkeeping of [`Disk::transfer`].
    fn read_runs(&self, buf: &mut [u8], offset: u64, patience: Patience) -> Result<bool> {
        if buf.is_empty() {
            return Ok(true);
        }
        match self.resolve(offset, buf.len() as u64, 0)? {
            (Source::Data { storage, offset, link }, run) if run >= buf.len() as u64 => match patience {
                Patience::Wait => storage.read_at(buf, offset).map(|()| true),
                Patience::Hurry => storage.try_read_at(buf, offset),
            }
            .context(|| format!("data of {}", link.label())),
            (Source::Zero, run) if run >= buf.len() as u64 => {
                buf.fill(0);
                Ok(true)
            }
            _ => self.transfer(buf, offset, 0, patience),
        }
    }

    /// What the parents of the leaf hold at `offset`; zeros without a parent.
    pub(super) fn read_below_leaf(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.transfer(buf, offset, 1, Patience::Wait).map(|_| ())
    }

    /// The loop: `top` is the first link asked.
    fn transfer(&self, buf: &mut [u8], offset: u64, top: usize, patience: Patience) -> Result<bool> {
        let mut waiting: Option<Waiting<'_>> = None;
        let mut at = 0;
        while at < buf.len() {
            let here = offset + at as u64;
            let (source, run) = self.resolve(here, (buf.len() - at) as u64, top)?;
            let len = usize::try_from(run).unwrap_or(usize::MAX).min(buf.len() - at);
            if let Source::Data { storage, offset, .. } = source
                && let Some(w) = &mut waiting
                && std::ptr::addr_eq(storage, w.storage)
                && offset == w.offset + w.len as u64
            {
                w.len += len;
                at += len;
                continue;
            }
            if !fetch(&mut waiting, buf, patience)? {
                return Ok(false);
            }
            match source {
                Source::Data { storage, offset, link } => {
                    waiting = Some(Waiting { storage, offset, link, at, len });
                }
                Source::Zero => buf[at..at + len].fill(0),
                Source::Packed(link) => {
                    if !unpack(link, here, &mut buf[at..at + len], patience)? {
                        return Ok(false);
                    }
                }
            }
            at += len;
        }
        fetch(&mut waiting, buf, patience)
    }

    /// Who has the bytes at `offset`, and for how long the answer holds. `top` is the first link asked.
    #[inline]
    pub(super) fn resolve(&self, offset: u64, max: u64, top: usize) -> Result<(Source<'_>, u64)> {
        if top > 0 || !self.owners.is_enabled() {
            return self.ask_in_turn(offset, max, top);
        }
        let (owner, run) = match self.owners.find(offset, max) {
            Some(found) => found,
            None => {
                self.learn_owners(offset)?;
                self.owners.find(offset, max).unwrap_or((Owner::Unknown, max))
            }
        };
        match owner {
            Owner::Nobody => Ok((Source::Zero, run)),
            Owner::Link(i) => match self.links.get(i) {
                Some(link) => match link.map(offset, run)? {
                    (Mapping::Unallocated, _) => self.ask_in_turn(offset, run, 0),
                    (mapping, run) => Ok((source(&mapping, link), run)),
                },
                None => self.ask_in_turn(offset, run, 0),
            },
            Owner::Unknown => self.ask_in_turn(offset, run, 0),
        }
    }

    /// Leaf first, then its parents, until one has something.
    fn ask_in_turn(&self, offset: u64, mut max: u64, top: usize) -> Result<(Source<'_>, u64)> {
        for link in self.links.iter().skip(top) {
            let (mapping, run) =
                link.map(offset, max).context(|| format!("offset {offset:#x} of {}", link.label()))?;
            match mapping {
                Mapping::Unallocated => max = run,
                found => return Ok((source(&found, link), run)),
            }
        }
        Ok((Source::Zero, max))
    }

    /// Fills the window of the owner index around `offset`. A link whose tables cannot be read there leaves the window
    /// unknown: the read that needs them will say so.
    fn learn_owners(&self, offset: u64) -> Result<()> {
        let changes = self.owners.changes();
        let window = OwnerIndex::window(offset);
        let range = window.start..window.end.min(self.capacity);
        let cells = ((range.end - range.start).div_ceil(CELL)) as usize;
        // Per cell: who owns it so far, or that several do.
        let mut owners = vec![Some(Owner::Nobody); cells];
        for (i, link) in self.links.iter().enumerate() {
            let mut mark = |part: std::ops::Range<u64>, presence: Presence| {
                if presence != Presence::Unallocated {
                    claim(&mut owners, range.start, range.end, part, i);
                }
            };
            if link.scan(range.clone(), &mut mark).is_err() {
                owners.fill(None);
                break;
            }
        }
        self.owners.fill(offset, range.end, changes, |at| {
            owners.get(((at - range.start) / CELL) as usize).copied().flatten().unwrap_or(Owner::Unknown)
        });
        Ok(())
    }
}

/// Marks what link `i` has in `part`: cells it has whole and nobody above has are its own, others become shared.
fn claim(owners: &mut [Option<Owner>], base: u64, end: u64, part: std::ops::Range<u64>, i: usize) {
    let mut at = part.start;
    while at < part.end {
        let cell = (at - base) / CELL;
        let (cell_start, cell_end) = (base + cell * CELL, (base + (cell + 1) * CELL).min(end));
        if let Some(owner) = owners.get_mut(cell as usize) {
            let whole = part.start <= cell_start && part.end >= cell_end;
            *owner = match *owner {
                Some(Owner::Nobody) if whole => Some(Owner::Link(i)),
                Some(Owner::Link(above)) if above < i => Some(Owner::Link(above)),
                _ => None,
            };
        }
        at = cell_end;
    }
}

/// A link's answer as a source; `Unallocated` was handled before.
fn source<'a>(mapping: &Mapping<'a>, link: &'a Link) -> Source<'a> {
    match mapping {
        Mapping::Data { storage, offset } => Source::Data { storage: *storage, offset: *offset, link },
        Mapping::Packed => Source::Packed(link),
        Mapping::Zero | Mapping::Unallocated => Source::Zero,
    }
}

/// Reads what waits, if anything does.
fn fetch(waiting: &mut Option<Waiting<'_>>, buf: &mut [u8], patience: Patience) -> Result<bool> {
    let Some(w) = waiting.take() else { return Ok(true) };
    let to = &mut buf[w.at..w.at + w.len];
    match patience {
        Patience::Wait => w.storage.read_at(to, w.offset).map(|()| true),
        Patience::Hurry => w.storage.try_read_at(to, w.offset),
    }
    .context(|| format!("data of {}", w.link.label()))
}

/// Delivers compressed data of a link.
fn unpack(link: &Link, offset: u64, buf: &mut [u8], patience: Patience) -> Result<bool> {
    let piece = link.piece(offset);
    let inner = offset - piece.start();
    match patience {
        Patience::Wait => piece.image().read_packed(inner, buf).map(|()| true),
        Patience::Hurry => piece.image().try_read_packed(inner, buf),
    }
    .context(|| format!("data of {}", link.label()))
}
