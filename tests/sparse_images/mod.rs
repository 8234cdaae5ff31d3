//! What the tests of sparse extents share: images, and a reader over `Image::map`.
#![allow(dead_code)] // each test program uses its part

use std::path::PathBuf;
use std::process::Command;

use sha2::Digest;
use sha2::Sha256;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::Presence;
use vixDiskLib::format::sparse::SparseOptions;
use vixDiskLib::logging::Log;

pub fn options(writable: bool) -> SparseOptions {
    SparseOptions { writable, cache_bytes: 1 << 20, log: Log::none(), name: "test.vmdk".into() }
}

/// The unpacked bytes of an image of the shared set; `None` with a printed reason when it is not there.
pub fn shared(name: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("VIX_IMAGES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/images"), PathBuf::from);
    if let Ok(bytes) = std::fs::read(root.join(name)) {
        return Some(bytes);
    }
    let packed = root.join(format!("{name}.zst"));
    if !packed.exists() {
        eprintln!("skipped: {} is not there (set VIX_IMAGES)", packed.display());
        return None;
    }
    match Command::new("zstd").arg("-dc").arg(&packed).output() {
        Ok(out) if out.status.success() => Some(out.stdout),
        _ => {
            eprintln!("skipped: zstd cannot unpack {}", packed.display());
            None
        }
    }
}

/// Reads a range in requests of at most `max` bytes; what is not there comes from `parent`.
pub fn read(image: &dyn Image, parent: Option<&[u8]>, start: u64, len: usize, max: u64) -> Result<Vec<u8>> {
    let mut out = vec![0xee; len];
    let mut done = 0;
    while done < len {
        let at = start + done as u64;
        let want = max.min((len - done) as u64);
        let (mapping, run) = image.map(at, want)?;
        assert!(run > 0 && run <= want, "a run of {run} for {want} at {at:#x}");
        let part = &mut out[done..done + run as usize];
        match mapping {
            Mapping::Data { storage, offset } => storage.read_at(part, offset)?,
            Mapping::Zero => part.fill(0),
            Mapping::Unallocated => match parent {
                Some(parent) => part.copy_from_slice(&parent[at as usize..at as usize + run as usize]),
                None => part.fill(0),
            },
            Mapping::Packed => unreachable!("no packed grains"),
        }
        done += run as usize;
    }
    Ok(out)
}

pub fn read_all(image: &dyn Image, parent: Option<&[u8]>) -> Result<Vec<u8>> {
    read(image, parent, 0, image.capacity() as usize, 1 << 20)
}

pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// What `scan` says, range by range, must be what `map` says.
pub fn scan_agrees_with_map(image: &dyn Image) {
    let mut scanned = Vec::new();
    image.scan(0..image.capacity(), &mut |range, presence| scanned.push((range, presence))).unwrap();
    let mut at = 0;
    for (range, presence) in scanned {
        assert_eq!(range.start, at, "a gap or an overlap");
        assert!(range.end > range.start);
        while at < range.end {
            let (mapping, run) = image.map(at, range.end - at).unwrap();
            let mapped = match mapping {
                Mapping::Data { .. } | Mapping::Packed => Presence::Data,
                Mapping::Zero => Presence::Zero,
                Mapping::Unallocated => Presence::Unallocated,
            };
            assert_eq!(mapped, presence, "at {at:#x}");
            at += run;
        }
    }
    assert_eq!(at, image.capacity());
}
