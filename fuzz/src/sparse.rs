//! Target for hosted sparse extents: read, written to, read again.

use std::ops::Range;
use std::sync::Arc;

use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::sparse::Sparse;
use vixDiskLib::format::sparse::SparseOptions;
use vixDiskLib::logging::Log;

use super::check;
use super::extents::CACHE;
use super::extents::compare;
use super::images::pattern;
use super::oracle;
use super::oracle::Oracle;
use super::oracle::Want;
use super::store::Holey;

/// Opens a hosted sparse extent.
pub fn open_sparse(file: &Arc<Holey>, writable: bool) -> Result<Sparse> {
    let options = SparseOptions { writable, cache_bytes: CACHE, log: Log::none(), name: "d.vmdk".to_owned() };
    Sparse::open(file.clone(), &options)
}

/// A hosted sparse extent: read, then written to, then read again.
pub fn sparse(data: &[u8]) {
    let file = Holey::decode(data);
    let oracle = oracle::Sparse::open(file.clone());
    let sane = oracle.is_ok();
    compare(open_sparse(&file, false), oracle);
    let copy = file.copy();
    if let Ok(image) = open_sparse(&copy, true) {
        assert!(sane, "opened for writing only");
        write_and_reread(&image, &file, &copy);
    }
}

/// What was written: a new grain or a sector in place.
#[derive(Clone, Debug)]
struct Written {
    sectors: Range<u64>,
    /// Only this sector was written; the rest of the new grain reads as zeros.
    only: Option<u64>,
}

impl Written {
    fn expected(&self, lba: u64) -> [u8; 512] {
        if self.only.is_none_or(|only| only == lba) { pattern(9, lba) } else { [0; 512] }
    }
}

/// Writes grains here and there. Afterwards they hold what was written, and every other sector what it held before.
fn write_and_reread(image: &Sparse, before: &Arc<Holey>, after: &Arc<Holey>) {
    let old = oracle::Sparse::open(before.clone()).unwrap();
    let windows = check::windows(&old);
    let starts: Vec<u64> = windows.iter().map(|w| w.start).chain(windows.iter().map(|w| w.end - 1)).collect();
    let mut written: Vec<Written> = Vec::new();
    for lba in starts {
        match write_sector(image, lba) {
            Ok(Some(sectors)) => written.push(sectors),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    if image.flush().is_err() | image.finish().is_err() {
        return;
    }
    let new = oracle::Sparse::open(after.clone()).expect("still a sparse extent after writing");
    let read_only = open_sparse(after, false).expect("opens after writing");
    check::image(&read_only, &new);
    let repaired = old.is_unclean();
    for lba in windows.into_iter().flatten() {
        let (want, got) = match written.iter().rfind(|w| w.sectors.contains(&lba)) {
            Some(written) => (Want::Bytes(written.expected(lba).to_vec()), new.sector(lba)),
            None if repaired => continue,
            None => (old.sector(lba), new.sector(lba)),
        };
        assert!(want == got, "sector {lba} was {want:?} and is {got:?}, written: {written:?}");
    }
    assert!(written.is_empty() || !new.is_unclean(), "closed, but not marked as clean");
}

/// Writes one sector, or all of the new grain it lies in. `None`: it cannot be told apart from what was there.
fn write_sector(image: &Sparse, lba: u64) -> Result<Option<Written>> {
    let (mapping, _) = image.map(lba * 512, 512)?;
    image.begin_writing()?;
    if let Mapping::Data { storage, offset } = mapping {
        storage.write_at(&pattern(9, lba), offset)?;
        return Ok(Some(Written { sectors: lba..lba + 1, only: None }));
    }
    let Some(pending) = image.prepare(lba * 512, 512)? else { return Ok(None) };
    let sectors = pending.grains.start / 512..pending.grains.end / 512;
    assert!(sectors.contains(&lba), "a reservation for another place: {:?}", pending.grains);
    // Where new space reads as zeros already, the library writes no more than it has to.
    let whole = !pending.zeroed || (sectors.end - sectors.start <= 128 && !lba.is_multiple_of(3));
    let (content, at): (Vec<u8>, u64) = match whole {
        true => (sectors.clone().flat_map(|lba| pattern(9, lba)).collect(), pending.offset),
        false => (pattern(9, lba).to_vec(), pending.offset + (lba - sectors.start) * 512),
    };
    match pending.storage.write_at(&content, at) {
        Ok(()) => image.commit(pending, lba.is_multiple_of(2))?,
        Err(e) => {
            image.abandon(pending);
            return Err(e);
        }
    }
    Ok(Some(Written { sectors, only: (!whole).then_some(lba) }))
}
