//! Which chunks of a disk are allocated: a bitmap, the first chunk in the lowest bit.

use std::ops::Range;

use crate::error::Result;
use crate::net::nfc::aio;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::broken;
use crate::net::nfc::fields::Fields;
use crate::net::nfc::fields::put64;

/// Bytes of the payload, both ways.
pub const PAYLOAD: usize = 48;

/// Most chunks of one request: what the interface of programs allows too.
pub const MOST_CHUNKS: u64 = 512 << 10;

/// The request; in the answer only the number of chunks means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The file; in an answer the status, of which 0 is good.
    pub handle: u64,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// First byte, a multiple of the chunk's size.
    pub start: u64,
    /// Number of chunks.
    pub chunks: u64,
}

impl Query {
    /// Appends the request.
    pub fn encode(&self, op: u32, into: &mut Vec<u8>) {
        aio::frame(into, Kind::Blocks, op, &self.payload(), &[]);
    }

    /// Appends the answer with this bitmap, which is that of as many chunks.
    pub fn answer(&self, bitmap: &[u8], op: u32, into: &mut Vec<u8>) {
        let answer = Self { handle: 0, chunk: 0, start: 0, ..*self };
        aio::frame(into, Kind::Blocks, op, &answer.payload(), bitmap);
    }

    /// Reads the request or the answer.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("QUERY_ALLOCATED_BLOCKS", payload, PAYLOAD)?;
        let (handle, chunk) = (fields.u64(0)?, fields.u64(16)?);
        Ok(Self { handle, chunk, start: fields.u64(24)?, chunks: fields.u64(32)? })
    }

    fn payload(&self) -> [u8; PAYLOAD] {
        let mut payload = [0; PAYLOAD];
        put64(&mut payload, 0, self.handle);
        put64(&mut payload, 16, self.chunk);
        put64(&mut payload, 24, self.start);
        put64(&mut payload, 32, self.chunks);
        payload
    }
}

/// Bytes of the bitmap of so many chunks: whole words of four.
pub fn bitmap_length(chunks: u64) -> Result<usize> {
    match usize::try_from(chunks) {
        Ok(count) if chunks <= MOST_CHUNKS => Ok(count.div_ceil(32) * 4),
        _ => Err(broken(format!("a map of {chunks} chunks, at most {MOST_CHUNKS}"))),
    }
}

/// Marks chunks in a bitmap; those outside of it are left out.
pub fn mark(bitmap: &mut [u8], chunks: Range<u64>) {
    let end = chunks.end.min(bitmap.len() as u64 * 8);
    let mut at = chunks.start;
    while at < end {
        let bits = (end - at).min(8 - at % 8); // up to the byte's end
        let mask = (0xff_u8 >> (8 - bits)) << (at % 8);
        if let Some(byte) = usize::try_from(at / 8).ok().and_then(|i| bitmap.get_mut(i)) {
            *byte |= mask;
        }
        at += bits;
    }
}

/// Tells the rows of marked chunks among the first `chunks`, in order. Bits after those are not looked at.
pub fn runs(bitmap: &[u8], chunks: u64, mut tell: impl FnMut(Range<u64>)) {
    let mut begun = None;
    let mut at = 0;
    for byte in bitmap {
        match (byte, begun) {
            (0, None) | (0xff, Some(_)) => {} // most bytes of most maps
            _ => {
                for bit in 0..8 {
                    let marked = byte >> bit & 1 == 1;
                    match begun {
                        None if marked => begun = Some(at + bit),
                        Some(start) if !marked && start < chunks => {
                            tell(start..(at + bit).min(chunks));
                            begun = None;
                        }
                        _ => {}
                    }
                }
            }
        }
        at += 8;
        if at >= chunks {
            break;
        }
    }
    if let Some(start) = begun.filter(|start| *start < chunks) {
        tell(start..at.min(chunks));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::proptest;

    use super::*;

    fn runs_of(bitmap: &[u8], chunks: u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        runs(bitmap, chunks, |run| found.push((run.start, run.end)));
        found
    }

    #[test]
    fn the_published_bitmap_is_read() {
        let in_sectors = runs_of(&[0x0f, 0x03], 10)
            .into_iter()
            .map(|(start, end)| (1000 + start * 128, (end - start) * 128));
        assert_eq!(in_sectors.collect::<Vec<_>>(), [(1000, 512), (2024, 256)]);
    }

    #[test]
    fn bits_beyond_the_count_are_not_looked_at() {
        assert_eq!(runs_of(&[0xff, 0xff], 9), [(0, 9)]);
        assert_eq!(runs_of(&[0x0f, 0xff], 4), [(0, 4)]);
        assert_eq!(runs_of(&[0xf0], 4), []);
        assert_eq!(runs_of(&[0xff; 4], 0), []);
        assert_eq!(runs_of(&[0xff], 100), [(0, 8)], "a bitmap that is too short");
    }

    #[test]
    fn bitmaps_are_whole_words_and_bounded() {
        for (chunks, bytes) in [(0, 0), (1, 4), (16, 4), (32, 4), (33, 8), (MOST_CHUNKS, 65536)] {
            assert_eq!(bitmap_length(chunks).unwrap(), bytes);
        }
        assert!(bitmap_length(MOST_CHUNKS + 1).is_err() && bitmap_length(u64::MAX).is_err());
    }

    #[test]
    fn requests_and_answers_are_read_as_they_were_made() {
        let query = Query { handle: 3, chunk: 65536, start: 1 << 40, chunks: 16 };
        let mut bytes = Vec::new();
        query.encode(1, &mut bytes);
        assert_eq!(Query::parse(&bytes[16..]).unwrap(), query);
        bytes.clear();
        query.answer(&[1, 2, 3, 4], 1, &mut bytes);
        assert_eq!(
            Query::parse(&bytes[16..64]).unwrap(),
            Query { handle: 0, chunk: 0, start: 0, chunks: 16 }
        );
        assert!(Query::parse(&bytes[16..63]).is_err() && bytes.ends_with(&[1, 2, 3, 4]));
    }

    proptest! {
        #[test]
        fn what_is_marked_is_found(chunks in vec(any::<bool>(), 0..200)) {
            let count = chunks.len() as u64;
            let mut bitmap = vec![0; bitmap_length(count).unwrap()];
            for (at, _) in chunks.iter().enumerate().filter(|(_, marked)| **marked) {
                mark(&mut bitmap, at as u64..at as u64 + 1);
            }
            let mut found = vec![false; chunks.len()];
            let mut end = None;
            for run in runs_of(&bitmap, count) {
                assert!(end < Some(run.0) && run.0 < run.1, "runs ascend and do not touch");
                found[run.0 as usize..run.1 as usize].fill(true);
                end = Some(run.1);
            }
            assert_eq!(found, chunks);
        }

        #[test]
        fn a_range_is_marked_as_a_whole(start in 0..300_u64, length in 0..300_u64) {
            let mut bitmap = [0; 32];
            mark(&mut bitmap, start..start + length);
            let inside = (start.min(256), (start + length).min(256));
            let expected = if inside.0 == inside.1 { vec![] } else { vec![inside] };
            assert_eq!(runs_of(&bitmap, 256), expected);
        }
    }
}
