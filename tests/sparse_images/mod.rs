//! What the tests of sparse extents share: images, and a reader over `Image::map`.
#![allow(dead_code)] // each test program uses its part

pub mod trace;

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use proptest::test_runner::Config as ProptestConfig;
use proptest::test_runner::RngSeed;
use sha2::Digest;
use sha2::Sha256;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::Presence;
use vixDiskLib::format::sparse::SparseOptions;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;

pub fn options(writable: bool) -> SparseOptions {
    SparseOptions { writable, cache_bytes: 1 << 20, log: Log::none(), name: "test.vmdk".into() }
}

/// The same cases in every run; a case that fails is printed, not kept in a file.
pub fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The unpacked bytes of an image of the set in `VIX_IMAGES`, else of the one next to the checkout, else of `tests/data`;
/// `None` with a printed reason when it is not there.
pub fn shared(name: &str) -> Option<Vec<u8>> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sets = [project.join("../shared/images"), project.join("tests/data")];
    let named = std::env::var_os("VIX_IMAGES").map(PathBuf::from);
    let set = named.into_iter().chain(sets).find(|set| set.join("manifest.tsv").exists());
    let Some(root) = set else { return skip("there is no set of images") };
    if let Ok(bytes) = std::fs::read(root.join(name)) {
        return Some(bytes);
    }
    let packed = root.join(format!("{name}.zst"));
    if !packed.exists() {
        // A small set need not have every image.
        eprintln!("skipped: no image {name} in {} (set VIX_IMAGES)", root.display());
        return None;
    }
    match Command::new("zstd").arg("-dc").arg(&packed).output() {
        Ok(out) if out.status.success() => Some(out.stdout),
        _ => skip(&format!("zstd cannot unpack {}", packed.display())),
    }
}

/// Says why something is not tested; with `CI=true` that is a failure.
pub fn skip<T>(reason: &str) -> Option<T> {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
    eprintln!("skipped: {reason}");
    None
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

/// How a made-up image is laid out.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Sectors of the extent.
    pub capacity: u64,
    /// Sectors of a grain.
    pub grain: u64,
    /// The directory names tables.
    pub tables: bool,
    /// There is a redundant directory.
    pub redundant: bool,
    /// Entries of 1 are grains of zeros.
    pub zero_grains: bool,
}

impl Layout {
    pub fn new(capacity: u64, grain: u64) -> Self {
        Self { capacity, grain, tables: true, redundant: true, zero_grains: false }
    }

    fn table_count(&self) -> u64 {
        self.capacity.div_ceil(self.grain).div_ceil(512)
    }

    fn directory_sectors(&self) -> u64 {
        (self.table_count() * 4).div_ceil(512)
    }

    /// Byte offset of the redundant directory.
    pub fn rgd(&self) -> u64 {
        21 * 512
    }

    /// Byte offset of the redundant tables.
    pub fn rgt(&self) -> u64 {
        self.rgd() + self.directory_sectors() * 512
    }

    /// Byte offset of the directory.
    pub fn gd(&self) -> u64 {
        self.rgt() + self.table_count() * 2048
    }

    /// Byte offset of the tables.
    pub fn gt(&self) -> u64 {
        self.gd() + self.directory_sectors() * 512
    }

    /// Byte offset of the first grain.
    pub fn data(&self) -> u64 {
        (self.gt() + self.table_count() * 2048).next_multiple_of(self.grain * 512)
    }

    /// An image without data.
    pub fn blank(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.data() as usize];
        let mut put =
            |at: u64, value: &[u8]| bytes[at as usize..at as usize + value.len()].copy_from_slice(value);
        let flags = 1 | if self.redundant { 2u32 } else { 0 } | if self.zero_grains { 4 } else { 0 };
        put(0, b"KDMV");
        put(4, &if self.zero_grains { 2u32 } else { 1 }.to_le_bytes());
        put(8, &flags.to_le_bytes());
        put(12, &self.capacity.to_le_bytes());
        put(20, &self.grain.to_le_bytes());
        put(28, &1u64.to_le_bytes());
        put(36, &20u64.to_le_bytes());
        put(44, &512u32.to_le_bytes());
        put(48, &if self.redundant { self.rgd() / 512 } else { 0 }.to_le_bytes());
        put(56, &(self.gd() / 512).to_le_bytes());
        put(64, &(self.data() / 512).to_le_bytes());
        put(73, &[0x0a, 0x20, 0x0d, 0x0a]);
        put(512, b"# Disk DescriptorFile\n");
        for i in (0..self.table_count()).filter(|_| self.tables) {
            put(self.gd() + i * 4, &((self.gt() / 512 + i * 4) as u32).to_le_bytes());
            if self.redundant {
                put(self.rgd() + i * 4, &((self.rgt() / 512 + i * 4) as u32).to_le_bytes());
            }
        }
        bytes
    }
}

/// Writes as the loops over images do: data, then tables. `parent` gives the rest of new grains.
pub fn write(image: &dyn Image, parent: Option<&[u8]>, at: u64, data: &[u8], deferred: bool) -> Result<()> {
    let mut done = 0;
    while done < data.len() {
        let at = at + done as u64;
        let rest = &data[done..];
        let (mapping, run) = image.map(at, rest.len() as u64)?;
        let hollow = matches!(mapping, Mapping::Zero);
        if let Mapping::Data { storage, offset } = mapping {
            storage.write_at(&rest[..run as usize], offset)?;
            done += run as usize;
            continue;
        }
        let Some(pending) = image.prepare(at, run)? else { continue };
        let (start, end) = (pending.grains.start, pending.grains.end);
        assert!(start <= at && at < end, "{at:#x} is not in {start:#x}..{end:#x}");
        let part = &rest[..(end - at).min(rest.len() as u64) as usize];
        let mut content = vec![0; (end - start) as usize];
        if let (Some(parent), false) = (parent, hollow) {
            let known = &parent[start as usize..(end as usize).min(parent.len())];
            content[..known.len()].copy_from_slice(known);
        }
        let skip = (at - start) as usize;
        content[skip..skip + part.len()].copy_from_slice(part);
        let written = if pending.zeroed && (parent.is_none() || hollow) {
            pending.storage.write_at(part, pending.offset + skip as u64)
        } else {
            pending.storage.write_at(&content, pending.offset)
        };
        match written {
            Ok(()) => image.commit(pending, deferred)?,
            Err(e) => {
                image.abandon(pending);
                return Err(e);
            }
        }
        done += part.len();
    }
    Ok(())
}

/// A log that keeps its lines.
#[derive(Default)]
pub struct Lines(std::sync::Mutex<Vec<String>>);

impl Sink for Lines {
    fn line(&self, _level: Level, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Lines {
    pub fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
