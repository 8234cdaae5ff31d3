//! A disk in pieces of many sizes, written and read in any order.

use super::model::Rng;
use super::vix::Disk;
use super::vix::code;
use super::vix::log_text;

/// Start and count of sectors.
pub type Piece = (u64, u64);

/// All of a disk in pieces, in an order of its own.
pub fn pieces(sectors: u64, seed: u64) -> Vec<Piece> {
    let mut rng = Rng::new(seed);
    let (mut all, mut at) = (Vec::new(), 0);
    while at < sectors {
        let longest = if rng.below(4) == 0 { 1000 } else { 64 };
        let count = rng.between(1, longest).min(sectors - at);
        all.push((at, count));
        at += count;
    }
    for n in (1..all.len()).rev() {
        all.swap(n, rng.below(n as u64 + 1) as usize);
    }
    all
}

/// All of a disk from its start to its end in pieces of one size.
pub fn in_order(sectors: u64, count: u64) -> Vec<Piece> {
    (0..sectors).step_by(count as usize).map(|at| (at, count.min(sectors - at))).collect()
}

/// The piece of a whole disk.
pub fn part(whole: &[u8], (at, count): Piece) -> &[u8] {
    &whole[(at * 512) as usize..((at + count) * 512) as usize]
}

/// Writes these pieces of a whole disk with many in flight.
#[track_caller]
pub fn write_async(disk: &Disk<'_>, pieces: &[Piece], whole: &[u8]) {
    let parts: Vec<(u64, &[u8])> = pieces.iter().map(|piece| (piece.0, part(whole, *piece))).collect();
    assert_eq!(disk.write_many(&parts, 24), code::OK, "{}", log_text());
}

/// Reads these pieces with many in flight, and compares.
#[track_caller]
pub fn compare_async(disk: &Disk<'_>, pieces: &[Piece], depth: usize, whole: &[u8]) {
    let read = disk.read_many(pieces, depth, 1).unwrap_or_else(|e| panic!("{e}\n{}", log_text()));
    let mut rest = read.as_slice();
    for piece in pieces {
        let (got, behind) = rest.split_at((piece.1 * 512) as usize);
        assert!(got == part(whole, *piece), "asynchronous: {} sectors at {}", piece.1, piece.0);
        rest = behind;
    }
}

/// Reads these pieces one by one, and compares.
#[track_caller]
pub fn compare_sync(disk: &Disk<'_>, pieces: &[Piece], whole: &[u8]) {
    for piece in pieces {
        let same = disk.must_read(piece.0, piece.1) == part(whole, *piece);
        assert!(same, "{} sectors at {}", piece.1, piece.0);
    }
}
