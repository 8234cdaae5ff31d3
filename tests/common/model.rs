//! Stamped sectors and a seeded generator.

use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

/// A small generator (xorshift64*), so that a failing run can be repeated from its seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A number in `from..to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// A sector that names itself: its number and a version, repeated to its end. Version 0 is the zero sector.
pub fn stamp(sector: u64, version: u64) -> [u8; 512] {
    let mut out = [0u8; 512];
    if version != 0 {
        for (n, chunk) in out.chunks_exact_mut(16).enumerate() {
            let (a, b) = chunk.split_at_mut(8);
            a.copy_from_slice(&sector.to_le_bytes());
            b.copy_from_slice(&(version ^ ((n as u64) << 56)).to_le_bytes());
        }
    }
    out
}

/// `count` stamped sectors from `start` on.
pub fn stamps(start: u64, count: u64, version: u64) -> Vec<u8> {
    (start..start + count).flat_map(|sector| stamp(sector, version)).collect()
}

/// The version a sector carries, or why it is no whole stamp of `sector`.
pub fn version_of(sector: u64, bytes: &[u8]) -> Result<u64, String> {
    if bytes.iter().all(|b| *b == 0) {
        return Ok(0);
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let version = word(8);
    if bytes != stamp(sector, version) {
        let start: Vec<u8> = bytes[..32].to_vec();
        return Err(format!("sector {sector} holds no whole stamp of its own: {start:02x?}"));
    }
    Ok(version)
}

/// True when every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| *b == 0)
}

/// The SHA-256 of bytes in hex.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hash = Hasher::default();
    hash.add(bytes);
    hash.hex()
}

/// A running SHA-256.
#[derive(Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        use sha2::Digest;
        self.0.update(bytes);
    }

    /// The hash in hex.
    pub fn hex(self) -> String {
        use sha2::Digest;
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The SHA-256 of a file in hex.
pub fn sha256_of(path: &Path) -> String {
    let mut input = std::fs::File::open(path).expect("the copy");
    let mut hash = Hasher::default();
    let mut buf = vec![0u8; 1 << 20];
    loop {
        match input.read(&mut buf).expect("reading the copy") {
            0 => return hash.hex(),
            n => hash.add(&buf[..n]),
        }
    }
}

/// Content with holes, data that compresses and data that does not.
pub fn sample(folder: &Path, sectors: u64) -> PathBuf {
    let mut rng = Rng::new(sectors);
    let mut bytes = vec![0u8; (sectors * 512) as usize];
    for _ in 0..sectors / 2000 + 3 {
        let count = rng.between(1, 700.min(sectors));
        let start = rng.below(sectors - count);
        let data =
            if rng.below(2) == 0 { rng.bytes((count * 512) as usize) } else { stamps(start, count, 5) };
        bytes[(start * 512) as usize..][..data.len()].copy_from_slice(&data);
    }
    let path = folder.join("in.raw");
    std::fs::write(&path, bytes).expect("the sample");
    path
}
