//! FastLZ, both levels of its public format.
//!
//! ```text
//!   c < 32                 c + 1 literal bytes follow
//!   lll ddddd  [more l]  dddddddd
//!                          a match: l + 2 bytes (7: more follows) from d + 1 bytes back
//! ```
//!
//! The level is in the upper bits of the first byte, whose lower ones are always the length of literals. In level 1 a
//! match has at most 264 bytes and reaches 8 KiB back; in level 2 it is as long as it likes, and one whose distance is
//! written as 8191 has the rest of it in two more bytes.

use std::fmt;

use crate::error::Result;
use crate::net::nfc::broken;

/// What is as long as this is packed with level 2, as the reference does it.
const LONG: usize = 64 << 10;

/// The distance that level 1 cannot pass, and with which level 2 says that more follows.
const NEAR: usize = 8191;

/// The longest distance of level 2.
const FAR: usize = NEAR + 0xffff;

/// The longest match that level 1 can say at once.
const LONGEST: usize = 264;

/// Literal bytes of one instruction.
const LITERALS: usize = 32;

/// The shortest match that is looked for, and one that pays even far away.
const SHORTEST: usize = 4;
const SHORTEST_FAR: usize = 6;

/// The last bytes are literals, as in the reference's output.
const TAIL: usize = 5;

const HASH_BITS: u32 = 13;

/// Packs.
pub struct Encoder {
    /// Where four bytes of this hash were seen last, plus one.
    seen: Box<[u32; 1 << HASH_BITS]>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fastlz::Encoder")
    }
}

impl Encoder {
    /// For any number of fragments.
    pub fn new() -> Self {
        Self { seen: Box::new([0; 1 << HASH_BITS]) }
    }

    /// False when the fragment does not get smaller.
    pub fn encode(&mut self, plain: &[u8], packed: &mut Vec<u8>) -> bool {
        match plain.len() >= LONG {
            false => self.encode_level::<false>(plain, packed),
            true => self.encode_level::<true>(plain, packed),
        }
    }

    fn encode_level<const LEVEL2: bool>(&mut self, plain: &[u8], packed: &mut Vec<u8>) -> bool {
        if plain.len() < 16 || u32::try_from(plain.len()).is_err() {
            return false; // as the reference: too short to be worth it
        }
        self.seen.fill(0);
        let limit = plain.len() - TAIL;
        let (mut at, mut literals, mut misses) = (0, 0, 0_usize);
        while let Some(word) = word(plain, at).filter(|_| at + SHORTEST <= limit) {
            let found = self.remember(word, at).filter(|back| plain_match(plain, *back, word));
            let distance = found.map_or(usize::MAX, |found| at - found - 1);
            if distance > if LEVEL2 { FAR } else { NEAR } {
                misses += 1;
                at += 1 + (misses >> 6); // data without matches are passed over faster and faster
                continue;
            }
            let length = SHORTEST + same(plain, at - distance - 1 + SHORTEST, at + SHORTEST, limit);
            if LEVEL2 && distance >= NEAR && length < SHORTEST_FAR {
                at += 1;
                continue;
            }
            put_literals(plain.get(literals..at).unwrap_or_default(), packed);
            put_match::<LEVEL2>(distance, length, packed);
            if packed.len() >= plain.len() {
                return false;
            }
            at += length;
            (literals, misses) = (at, 0);
            if let Some(word) = self::word(plain, at - 2) {
                self.remember(word, at - 2);
            }
        }
        put_literals(plain.get(literals..).unwrap_or_default(), packed);
        if let Some(first) = packed.first_mut().filter(|_| LEVEL2) {
            *first |= 1 << 5;
        }
        packed.len() < plain.len()
    }

    /// Where this word was seen before; it is noted as seen here.
    fn remember(&mut self, word: u32, at: usize) -> Option<usize> {
        let hash = word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS);
        let slot = self.seen.get_mut(hash as usize)?;
        let before = std::mem::replace(slot, at as u32 + 1); // fragments are shorter than 2^32
        before.checked_sub(1).map(|at| at as usize)
    }
}

fn word(plain: &[u8], at: usize) -> Option<u32> {
    plain.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn plain_match(plain: &[u8], at: usize, expected: u32) -> bool {
    word(plain, at) == Some(expected)
}

/// How many bytes from here are the same as those from there, up to `limit` here.
fn same(plain: &[u8], there: usize, here: usize, limit: usize) -> usize {
    let here = plain.get(here..limit).unwrap_or_default();
    let there = plain.get(there..).unwrap_or_default();
    let words = here.as_chunks::<8>().0.iter().zip(there.as_chunks::<8>().0);
    let mut length = 0;
    for (a, b) in words {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return length + differ.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = here.iter().zip(there).skip(length);
    length + rest.take_while(|(a, b)| a == b).count()
}

fn put_literals(literals: &[u8], packed: &mut Vec<u8>) {
    for run in literals.chunks(LITERALS) {
        packed.push(run.len() as u8 - 1); // 1 to 32 bytes
        packed.extend_from_slice(run);
    }
}

fn put_match<const LEVEL2: bool>(distance: usize, length: usize, packed: &mut Vec<u8>) {
    if LEVEL2 {
        return put_part::<true>(distance, length, packed);
    }
    let mut left = length;
    while left > 0 {
        let part = match left {
            ..=LONGEST => left,
            265 | 266 => left - 3, // the rest must not be shorter than a match can be
            _ => LONGEST,
        };
        put_part::<false>(distance, part, packed);
        left -= part;
    }
}

fn put_part<const LEVEL2: bool>(distance: usize, length: usize, packed: &mut Vec<u8>) {
    let far = LEVEL2 && distance >= NEAR;
    let near = if far { NEAR } else { distance };
    let (high, low) = ((near >> 8) as u8, near as u8); // 13 bits
    let code = length - 2;
    if code < 7 {
        packed.push((code as u8) << 5 | high);
    } else {
        packed.push(7 << 5 | high);
        let mut more = code - 7;
        while LEVEL2 && more >= 255 {
            packed.push(255);
            more -= 255;
        }
        packed.push(more as u8); // less than 256, also in level 1: see LONGEST
    }
    packed.push(low);
    if far {
        let rest = distance - NEAR;
        packed.extend_from_slice(&[(rest >> 8) as u8, rest as u8]); // at most FAR
    }
}

/// Unpacks.
pub fn decode(packed: &[u8], plain: &mut [u8]) -> Result<()> {
    let Some((first, rest)) = packed.split_first() else { return Err(broken("it has no data")) };
    let done = match first >> 5 {
        0 => decode_level::<false>(*first, rest, plain),
        1 => decode_level::<true>(first & 31, rest, plain),
        level => return Err(broken(format!("it has level {}, 1 and 2 are known", level + 1))),
    };
    match done {
        Some(length) if length == plain.len() => Ok(()),
        Some(length) => Err(broken(format!("its data end after {length} bytes"))),
        None => Err(broken("its data end early, or say more than there can be")),
    }
}

/// The bytes that were filled; `None` where an instruction leads outside of what is there.
fn decode_level<const LEVEL2: bool>(first: u8, mut rest: &[u8], plain: &mut [u8]) -> Option<usize> {
    let (mut control, mut at) = (first, 0);
    loop {
        if control < 32 {
            let length = usize::from(control) + 1;
            let room = plain.get_mut(at..)?;
            // Fixed lengths need no call; what is too much is written over later.
            match (room.first_chunk_mut::<LITERALS>(), rest.first_chunk::<LITERALS>()) {
                (Some(to), Some(from)) => *to = *from,
                _ => room.get_mut(..length)?.copy_from_slice(rest.get(..length)?),
            }
            rest = rest.get(length..)?;
            at += length;
        } else {
            let (length, distance, behind) = read_match::<LEVEL2>(control, rest)?;
            repeat(plain, at, distance, length)?;
            rest = behind;
            at += length;
        }
        match rest.split_first() {
            None => return Some(at),
            Some((next, behind)) => (control, rest) = (*next, behind),
        }
    }
}

/// Length and distance of a match, and what follows it.
fn read_match<const LEVEL2: bool>(control: u8, rest: &[u8]) -> Option<(usize, usize, &[u8])> {
    let mut length = usize::from(control >> 5) + 2;
    let mut rest = rest;
    while length >= 9 {
        let (&more, behind) = rest.split_first()?;
        length = length.checked_add(usize::from(more))?;
        rest = behind;
        if !LEVEL2 || more != 255 {
            break;
        }
    }
    let (&low, behind) = rest.split_first()?;
    let near = usize::from(control & 31) << 8 | usize::from(low);
    if LEVEL2 && near == NEAR {
        let (&[high, low], behind) = behind.split_first_chunk()?;
        return Some((length, NEAR + usize::from(u16::from_be_bytes([high, low])) + 1, behind));
    }
    Some((length, near + 1, behind))
}

/// Copies `length` bytes from `distance` back to `at`; they may overlap, and then repeat.
fn repeat(plain: &mut [u8], at: usize, distance: usize, length: usize) -> Option<()> {
    let start = at.checked_sub(distance)?;
    let (done, room) = plain.split_at_mut_checked(at)?;
    if length > room.len() {
        return None;
    }
    let from = done.get(start..)?;
    if length <= distance {
        match (room.first_chunk_mut::<LITERALS>(), from.first_chunk::<LITERALS>()) {
            (Some(to), Some(from)) if length <= LITERALS => *to = *from,
            _ => room.get_mut(..length)?.copy_from_slice(from.get(..length)?),
        }
        return Some(());
    }
    if let [only] = from {
        room.get_mut(..length)?.fill(*only);
        return Some(());
    }
    // What is there repeats itself with this distance: copied whole, the next copy may be longer.
    let mut copied = 0;
    while copied < length {
        let part = (distance + copied).min(length - copied);
        plain.copy_within(start..start + part, at + copied);
        copied += part;
    }
    Some(())
}
