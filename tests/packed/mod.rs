//! What the tests of the read-only formats share: images, a tiny overlay reader, checks of the `Image` contract.
#![allow(dead_code, reason = "each test program uses its part")]

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use sha2::Digest;
use sha2::Sha256;
use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::Mapping;
use vixDiskLib::format::Presence;
use vixDiskLib::storage::Storage;
use vixDiskLib::storage::memory::MemoryStorage;

/// The bytes of an image below `vmdk/`, unpacked if it is stored packed. Looked for in `VIX_IMAGES`, then beside the
/// checkout, then in `tests/data`; `None` with a printed reason when none has it.
pub fn image(name: &str) -> Option<Vec<u8>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("VIX_IMAGES").map(PathBuf::from);
    let folders = named.into_iter().chain([manifest.join("../shared/images"), manifest.join("tests/data")]);
    for folder in folders {
        let plain = folder.join("vmdk").join(name);
        if plain.is_file() {
            return Some(std::fs::read(plain).unwrap());
        }
        let packed = folder.join("vmdk").join(format!("{name}.zst"));
        if packed.is_file() {
            return Some(unpack(&packed));
        }
    }
    println!("skipped: no image vmdk/{name} (set VIX_IMAGES)");
    None
}

fn unpack(packed: &Path) -> Vec<u8> {
    let run = Command::new("zstd").args(["-dcq", "--"]).arg(packed).output();
    let run = run.unwrap_or_else(|e| panic!("the command zstd is needed for {}: {e}", packed.display()));
    assert!(run.status.success(), "zstd -dc {}", packed.display());
    run.stdout
}

/// Bytes as a storage.
pub fn memory(bytes: Vec<u8>) -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new("memory", bytes))
}

/// A base link: bytes that are all there.
#[derive(Debug)]
pub struct Base {
    storage: MemoryStorage,
    capacity: u64,
}

impl Base {
    pub fn new(bytes: Vec<u8>) -> Self {
        let capacity = bytes.len() as u64;
        Self { storage: MemoryStorage::new("base", bytes), capacity }
    }
}

impl Image for Base {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn map(&self, offset: u64, max: u64) -> Result<(Mapping<'_>, u64)> {
        Ok((Mapping::Data { storage: &self.storage, offset }, max.min(self.capacity - offset)))
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Reads through a chain, leaf first, and holds every answer to the contract of `map`.
pub fn read(chain: &[&dyn Image], offset: u64, buf: &mut [u8]) -> Result<()> {
    let Some((leaf, parents)) = chain.split_first() else {
        buf.fill(0);
        return Ok(());
    };
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        let max = (buf.len() - done) as u64;
        let (mapping, run) = leaf.map(at, max)?;
        assert!(run >= 1 && run <= max && at + run <= leaf.capacity(), "run {run} of {max} at {at:#x}");
        let part = &mut buf[done..done + run as usize];
        match mapping {
            Mapping::Data { storage, offset } => storage.read_at(part, offset)?,
            Mapping::Zero => part.fill(0),
            Mapping::Packed => leaf.read_packed(at, part)?,
            Mapping::Unallocated => read(parents, at, part)?,
        }
        done += run as usize;
    }
    Ok(())
}

/// The whole content, read with requests of `step` bytes.
pub fn content(chain: &[&dyn Image], step: usize) -> Vec<u8> {
    let mut all = vec![0xa5; chain[0].capacity() as usize];
    for (number, part) in all.chunks_mut(step).enumerate() {
        read(chain, (number * step) as u64, part).unwrap();
    }
    all
}

/// The sha256 of the whole content, read with requests of `step` bytes.
pub fn sha256(chain: &[&dyn Image], step: usize) -> String {
    let capacity = chain[0].capacity();
    let mut hash = Sha256::new();
    let mut buf = vec![0xa5; step];
    let mut at = 0;
    while at < capacity {
        let part = &mut buf[..step.min((capacity - at) as usize)];
        read(chain, at, part).unwrap();
        hash.update(&*part);
        at += part.len() as u64;
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `map` says about presence, as merged ranges.
pub fn mapped(image: &dyn Image, range: Range<u64>, step: u64) -> Vec<(Range<u64>, Presence)> {
    let mut parts = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (mapping, run) = image.map(at, step.min(range.end - at)).unwrap();
        let presence = match mapping {
            Mapping::Data { .. } | Mapping::Packed => Presence::Data,
            Mapping::Zero => Presence::Zero,
            Mapping::Unallocated => Presence::Unallocated,
        };
        push(&mut parts, at..at + run, presence);
        at += run;
    }
    parts
}

/// What `scan` reports, held to its contract, as merged ranges.
pub fn scanned(image: &dyn Image, range: Range<u64>) -> Vec<(Range<u64>, Presence)> {
    let mut parts = Vec::new();
    let mut at = range.start;
    let mut sink = |part: Range<u64>, presence| {
        assert!(part.start == at && part.end > at && part.end <= range.end, "{part:?} after {at:#x}");
        at = part.end;
        push(&mut parts, part, presence);
    };
    image.scan(range.clone(), &mut sink).unwrap();
    assert_eq!(at, range.end);
    parts
}

fn push(parts: &mut Vec<(Range<u64>, Presence)>, part: Range<u64>, presence: Presence) {
    match parts.last_mut() {
        Some((last, held)) if *held == presence => last.end = part.end,
        _ => parts.push((part, presence)),
    }
}

/// `scan` and `map` agree, over the whole disk and over odd parts of it.
pub fn scan_agrees_with_map(image: &dyn Image) {
    let capacity = image.capacity();
    assert_eq!(scanned(image, 0..capacity), mapped(image, 0..capacity, u64::MAX));
    for part in [capacity / 3..capacity / 2 + 1, 1..capacity, capacity - 1..capacity] {
        assert_eq!(scanned(image, part.clone()), mapped(image, part.clone(), 70_001), "{part:?}");
    }
    assert_eq!(scanned(image, 5..5), []);
}

/// The raw content by `qemu-img`, or a printed reason.
pub fn qemu_raw(file: &Path) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let convert =
        Command::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]).arg(file).arg(&raw).output();
    match convert {
        Err(e) => {
            println!("skipped: qemu-img cannot be run: {e}");
            None
        }
        Ok(run) => {
            assert!(run.status.success(), "qemu-img: {}", String::from_utf8_lossy(&run.stderr));
            Some(std::fs::read(raw).unwrap())
        }
    }
}

/// Numbers that look random and are the same in every run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Overwrites bytes of a file.
pub fn patch(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Grain content that tells its place: compressible text with the number in it.
pub fn pattern(number: u64, len: usize) -> Vec<u8> {
    format!("grain {number:>12} of the disk; ").into_bytes().into_iter().cycle().take(len).collect()
}
