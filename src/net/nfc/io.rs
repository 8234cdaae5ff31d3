//! Reads and writes.
//!
//! A read is one request, answered by fragments in any order, those of several reads mixed. A write is a row of
//! fragments, answered once. All of one operation have its number. One structure serves all four.

use std::ops::Range;

use crate::error::Result;
use crate::net::nfc::Compression;
use crate::net::nfc::aio::HEADER;
use crate::net::nfc::aio::Header;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::broken;
use crate::net::nfc::fields::Fields;
use crate::net::nfc::fields::put32;
use crate::net::nfc::fields::put64;

/// Bytes of the structure.
pub const PAYLOAD: usize = 44;

/// Bytes of a whole frame before its data.
pub const HEAD: usize = HEADER + PAYLOAD;

/// Data that are packed may come out longer than they went in, but not by more than this.
pub const MOST_GROWTH: u32 = 64 << 10;

/// Everything on a disk is a multiple of this.
const SECTOR: u32 = 512;

/// More islands than this have no honest reason: see [`Fragments`].
const MOST_ISLANDS: usize = 1024;

/// Which way the data go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the disk.
    Write = 0,
    /// From the disk.
    Read = 1,
}

/// A request, a fragment or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The file; in what the server sends the status, of which 0 is good.
    pub handle: u64,
    /// Which way.
    pub direction: Direction,
    /// In a read's request the packing that is wanted, in a fragment its own.
    pub compression: Compression,
    /// First byte on the disk of the whole operation.
    pub offset: u64,
    /// Bytes of the whole operation.
    pub total: u32,
    /// Where the fragment lies in the operation.
    pub at: u32,
    /// Bytes of the fragment, unpacked.
    pub length: u32,
    /// Bytes of data that follow this structure; in requests to read and answers to writes none do.
    pub wire: u32,
}

impl Io {
    /// The request to read `total` bytes.
    pub fn read(handle: u64, compression: Compression, offset: u64, total: u32) -> Self {
        Self {
            handle,
            direction: Direction::Read,
            compression,
            offset,
            total,
            at: 0,
            length: total,
            wire: total,
        }
    }

    /// A fragment of a write.
    pub fn write(handle: u64, offset: u64, total: u32, at: u32, length: u32) -> Self {
        let (direction, compression) = (Direction::Write, Compression::None);
        Self { handle, direction, compression, offset, total, at, length, wire: length }
    }

    /// The answer to this read request that brings a fragment of it, not packed.
    pub fn fragment(&self, at: u32, length: u32) -> Self {
        Self { handle: 0, compression: Compression::None, at, length, wire: length, ..*self }
    }

    /// The answer that says how this request went.
    pub fn answer(&self, status: u64) -> Self {
        let (at, length, wire) = (0, self.total, if status == 0 { self.total } else { 0 });
        Self { handle: status, compression: Compression::None, at, length, wire, ..*self }
    }

    /// The same with data that were packed into `wire` bytes.
    #[must_use]
    pub fn packed(self, compression: Compression, wire: u32) -> Self {
        Self { compression, wire, ..self }
    }

    /// The frame up to its data.
    pub fn encode(&self, op: u32) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        Header { kind: Kind::Io, size: PAYLOAD as u32, op }.put(&mut head);
        let payload = &mut head[HEADER..];
        put64(payload, 0, self.handle);
        put32(payload, 8, self.direction as u32);
        put32(payload, 12, self.compression.number());
        put64(payload, 16, self.offset);
        put32(payload, 24, self.total);
        put32(payload, 28, self.at);
        put32(payload, 32, self.length);
        put32(payload, 36, self.wire);
        head
    }

    /// Reads the structure.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("an I/O message", payload, PAYLOAD)?;
        let direction = match fields.u32(8)? {
            0 => Direction::Write,
            1 => Direction::Read,
            other => return Err(broken(format!("an I/O message with the direction {other}"))),
        };
        let compression = fields.u32(12)?;
        let Some(compression) = Compression::of(compression) else {
            return Err(broken(format!("an I/O message with the unknown compression {compression}")));
        };
        Ok(Self {
            handle: fields.u64(0)?,
            direction,
            compression,
            offset: fields.u64(16)?,
            total: fields.u32(24)?,
            at: fields.u32(28)?,
            length: fields.u32(32)?,
            wire: fields.u32(36)?,
        })
    }
}

/// The fragments of one operation: each byte must come exactly once.
///
/// Costs nothing while they come in order, and little in any other. An honest peer leaves few gaps at a time: buffers of
/// 64 KiB in reversed order are one island, and there are 512 of them in 32 MiB.
#[derive(Clone, Debug)]
pub struct Fragments {
    direction: Direction,
    /// What was asked for, `None` where fragments may also come unpacked only.
    compression: Option<Compression>,
    offset: u64,
    total: u32,
    /// Most bytes of one fragment.
    buffer: u32,
    /// Everything before this came.
    prefix: u32,
    /// What came beyond it, by its start; neither touching each other nor the prefix.
    islands: Vec<Range<u32>>,
}

impl Fragments {
    /// Of the read that this request asks for. No fragment is longer than `buffer`.
    pub fn of_read(request: &Io, buffer: u32) -> Self {
        let compression = Some(request.compression).filter(|c| *c != Compression::None);
        Self { compression, ..Self::new(Direction::Read, request, buffer) }
    }

    /// Of the write that begins with this fragment. The packing is the client's choice each time.
    pub fn of_write(first: &Io, buffer: u32) -> Self {
        Self::new(Direction::Write, first, buffer)
    }

    fn new(direction: Direction, io: &Io, buffer: u32) -> Self {
        let (offset, total) = (io.offset, io.total);
        Self { direction, compression: None, offset, total, buffer, prefix: 0, islands: Vec::new() }
    }

    /// Notes a fragment and says where its bytes belong in the operation.
    pub fn take(&mut self, fragment: &Io) -> Result<Range<u32>> {
        let place = self.check(fragment)?;
        self.note(place.clone())?;
        Ok(place)
    }

    /// Everything came.
    pub fn is_complete(&self) -> bool {
        self.prefix >= self.total
    }

    /// Nothing came.
    pub fn is_untouched(&self) -> bool {
        self.prefix == 0 && self.islands.is_empty()
    }

    /// Says where the bytes of a fragment belong in the operation, whether or not others came for the same place.
    pub fn check(&self, io: &Io) -> Result<Range<u32>> {
        let wrong =
            |what: &str| Err(broken(format!("{what}: {io:?} in an operation of {} bytes", self.total)));
        if io.direction != self.direction || io.offset != self.offset || io.total != self.total {
            return wrong("a fragment that belongs to no such operation");
        }
        let Some(end) = io.at.checked_add(io.length).filter(|end| *end <= self.total) else {
            return wrong("a fragment that passes its operation's end");
        };
        if io.length == 0
            || io.length > self.buffer
            || !io.length.is_multiple_of(SECTOR)
            || !io.at.is_multiple_of(SECTOR)
        {
            return wrong("a fragment of a length or place that cannot be");
        }
        let fits = match io.compression {
            Compression::None => io.wire == io.length,
            packed => {
                let wanted = self.direction == Direction::Write || self.compression == Some(packed);
                wanted && io.wire > 0 && io.wire <= self.buffer.saturating_add(MOST_GROWTH)
            }
        };
        if fits { Ok(io.at..end) } else { wrong("a fragment with data that cannot be") }
    }

    fn note(&mut self, part: Range<u32>) -> Result<()> {
        let next = self.islands.partition_point(|island| island.start < part.start);
        let before = next.checked_sub(1);
        let overlaps_next = self.islands.get(next).is_some_and(|island| island.start < part.end);
        let ends_before = before.and_then(|i| self.islands.get(i)).map_or(self.prefix, |island| island.end);
        if part.start < ends_before || overlaps_next {
            return Err(broken(format!("bytes {part:?} of an operation came twice")));
        }
        let mut part = part;
        if self.islands.get(next).is_some_and(|island| island.start == part.end) {
            part.end = self.islands.remove(next).end;
        }
        if part.start == self.prefix {
            self.prefix = part.end;
            return Ok(());
        }
        let scattered = self.islands.len() >= MOST_ISLANDS;
        match before.and_then(|i| self.islands.get_mut(i)) {
            Some(island) if island.end == part.start => island.end = part.end,
            _ if scattered => return Err(broken("fragments of an operation that are scattered too far")),
            _ => self.islands.insert(next, part),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::proptest;

    use super::*;
    use crate::error::ErrorKind;

    fn request() -> Io {
        Io::read(7, Compression::None, 1 << 33, 16 * SECTOR)
    }

    fn fragment(at: u32, length: u32) -> Io {
        request().fragment(at * SECTOR, length * SECTOR)
    }

    #[test]
    fn an_io_message_is_read_as_it_was_made() {
        for io in [request(), fragment(4, 2), Io::write(9, 512, 1024, 512, 512).packed(Compression::Skipz, 8)]
        {
            let head = io.encode(5);
            assert_eq!(Header::parse(&head[..16]).unwrap(), Header { kind: Kind::Io, size: 44, op: 5 });
            assert_eq!(Io::parse(&head[16..]).unwrap(), io);
        }
        assert!(Io::parse(&[0; 43]).is_err());
    }

    #[test]
    fn unknown_directions_and_compressions_are_refused() {
        let payload = |at: usize, value: u8| {
            let mut payload = request().encode(0)[16..].to_vec();
            payload[at] = value;
            payload
        };
        assert!(Io::parse(&payload(8, 2)).is_err() && Io::parse(&payload(12, 4)).is_err());
        assert!(Io::parse(&payload(12, 3)).is_ok());
    }

    #[test]
    fn fragments_in_any_order_make_a_whole() {
        let mut read = Fragments::of_read(&request(), 4 * SECTOR);
        assert!(read.is_untouched());
        for (at, length) in [(8, 4), (0, 4), (14, 2), (12, 2), (4, 4)] {
            assert!(!read.is_complete());
            let place = read.take(&fragment(at, length)).unwrap();
            assert_eq!(place, at * SECTOR..(at + length) * SECTOR);
        }
        assert!(read.is_complete() && read.islands.is_empty());
    }

    #[test]
    fn every_fragment_that_lies_is_refused() {
        let good = fragment(4, 4);
        for bad in [
            Io { direction: Direction::Write, ..good },
            Io { offset: 0, ..good },
            Io { total: 512, ..good },
            Io { length: 0, wire: 0, ..good },
            Io { at: u32::MAX - 511, ..good },
            fragment(13, 4),
            fragment(0, 5),
            Io { at: 1, ..good },
            Io { length: 2047, wire: 2047, ..good },
            Io { wire: 1, ..good },
            Io { wire: u32::MAX, ..good },
            good.packed(Compression::Zlib, 100),
        ] {
            let mut read = Fragments::of_read(&request(), 4 * SECTOR);
            assert_eq!(read.take(&bad).unwrap_err().kind(), ErrorKind::Protocol, "{bad:?}");
            read.take(&good).unwrap();
        }
    }

    #[test]
    fn packed_fragments_are_the_wanted_ones_or_raw() {
        let wanted = Io { compression: Compression::Skipz, ..request() };
        let mut read = Fragments::of_read(&wanted, 4 * SECTOR);
        read.take(&fragment(0, 4).packed(Compression::Skipz, 8)).unwrap();
        read.take(&fragment(4, 4)).unwrap();
        assert!(read.take(&fragment(8, 4).packed(Compression::Zlib, 8)).is_err());
        assert!(read.take(&fragment(8, 4).packed(Compression::Skipz, 0)).is_err());
        assert!(read.take(&fragment(8, 4).packed(Compression::Skipz, 4 * SECTOR + MOST_GROWTH + 1)).is_err());
    }

    #[test]
    fn a_byte_that_comes_twice_is_refused() {
        for (at, length) in [(0, 1), (3, 2), (9, 1), (7, 2), (11, 2), (5, 4), (8, 4)] {
            let mut read = Fragments::of_read(&request(), 16 * SECTOR);
            read.take(&fragment(0, 4)).unwrap();
            read.take(&fragment(8, 4)).unwrap();
            assert!(read.take(&fragment(at, length)).is_err(), "{at} {length}");
        }
    }

    #[test]
    fn scattered_fragments_are_bounded() {
        let request = Io::read(7, Compression::None, 0, 1 << 22);
        let mut read = Fragments::of_read(&request, 1 << 16);
        let taken =
            (0..4000).take_while(|i| read.take(&request.fragment((2 * i + 1) * 512, 512)).is_ok()).count();
        assert_eq!(taken, MOST_ISLANDS);
    }

    proptest! {
        #[test]
        fn fragments_agree_with_a_list_of_sectors(parts in vec((0..18_u32, 0..6_u32), 0..24)) {
            let mut read = Fragments::of_read(&request(), 4 * SECTOR);
            let mut came = [false; 16];
            for (at, length) in parts {
                let sectors = at as usize..(at + length) as usize;
                let fits = (1..=4).contains(&length)
                    && came.get(sectors.clone()).is_some_and(|sectors| !sectors.contains(&true));
                assert_eq!(read.take(&fragment(at, length)).is_ok(), fits);
                if fits {
                    came[sectors].fill(true);
                }
                assert_eq!(read.is_complete(), !came.contains(&false));
            }
        }

        #[test]
        fn any_structure_is_read_or_refused(payload in vec(any::<u8>(), 44..=44)) {
            if let Ok(io) = Io::parse(&payload) {
                assert_eq!(io.encode(0)[16..56], payload[..40]);
            }
        }
    }
}
