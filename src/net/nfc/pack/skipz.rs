//! A list of what is not zero.
//!
//! ```text
//!   u32 bytes of the fragment    u32 0
//!   then for each run:  u32 offset    u32 length    its bytes
//! ```
//!
//! Runs ascend and do not overlap; all else is zero. Each costs eight bytes, so that zeros end one only in a long row.

use crate::error::Result;
use crate::net::nfc::broken;

/// Zeros that are worth the end of a run and the start of another.
const WORTH: usize = 16;

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Packs. False when the fragment does not get smaller.
pub fn encode(plain: &[u8], packed: &mut Vec<u8>) -> bool {
    let Ok(total) = u32::try_from(plain.len()) else { return false };
    packed.extend_from_slice(&total.to_le_bytes());
    packed.extend_from_slice(&[0; 4]);
    let mut at = end_of_zeros(plain, 0);
    while at < plain.len() {
        let (end, next) = zeros(plain, at);
        let run = plain.get(at..end).unwrap_or_default();
        if packed.len() + 8 + run.len() >= plain.len() {
            return false;
        }
        packed.extend_from_slice(&(at as u32).to_le_bytes()); // inside of total
        packed.extend_from_slice(&(run.len() as u32).to_le_bytes());
        packed.extend_from_slice(run);
        at = next;
    }
    packed.len() < plain.len()
}

/// Where the next row of zeros that is worth it begins and ends, at or after `from`; at the end of all any is.
fn zeros(plain: &[u8], from: usize) -> (usize, usize) {
    let mut at = from;
    // A row of so many zeros covers a whole word, counted from the start of the fragment.
    while let Some(word) = zero_word(plain, at) {
        let before = plain.get(at..word).unwrap_or_default().iter().rev().take_while(|b| **b == 0).count();
        let (begin, end) = (word - before, end_of_zeros(plain, word));
        if end - begin >= WORTH || end == plain.len() {
            return (begin, end);
        }
        at = end;
    }
    let tail = plain.get(at..).unwrap_or_default().iter().rev().take_while(|b| **b == 0).count();
    (plain.len() - tail, plain.len())
}

/// The first word of zeros at or after `from`.
fn zero_word(plain: &[u8], from: usize) -> Option<usize> {
    let mut at = from.next_multiple_of(8);
    loop {
        let block = plain.get(at..)?.first_chunk::<BLOCK>();
        let Some(block) = block else { break };
        let (words, _) = block.as_chunks::<8>();
        if words.iter().fold(false, |found, word| found | (u64::from_ne_bytes(*word) == 0)) {
            break;
        }
        at += BLOCK;
    }
    let (words, _) = plain.get(at..)?.as_chunks::<8>();
    words.iter().position(|word| *word == [0; 8]).map(|i| at + 8 * i)
}

/// Where zeros that may begin at `from` end.
fn end_of_zeros(plain: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = plain.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        let (words, _) = block.as_chunks::<8>();
        if words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) != 0 {
            break;
        }
        at += BLOCK;
    }
    at + plain.get(at..).unwrap_or_default().iter().take_while(|b| **b == 0).count()
}

/// Unpacks.
pub fn decode(packed: &[u8], plain: &mut [u8]) -> Result<()> {
    let (total, second, mut rest) = pair(packed)?;
    if total != plain.len() || second != 0 {
        return Err(broken(format!("its list is for {total} bytes, followed by {second}")));
    }
    let mut at = 0;
    while !rest.is_empty() {
        let (offset, length, behind) = pair(rest)?;
        let Some((run, behind)) = behind.split_at_checked(length) else {
            return Err(broken(format!("a run of {length} bytes, {} are there", behind.len())));
        };
        let end = offset.checked_add(length).filter(|end| offset >= at && *end <= plain.len());
        let Some(end) = end else {
            return Err(broken(format!("a run of {length} bytes at {offset}, after others up to {at}")));
        };
        plain.get_mut(at..offset).unwrap_or_default().fill(0);
        plain.get_mut(offset..end).unwrap_or_default().copy_from_slice(run);
        (at, rest) = (end, behind);
    }
    plain.get_mut(at..).unwrap_or_default().fill(0);
    Ok(())
}

/// Two numbers at the front.
fn pair(bytes: &[u8]) -> Result<(usize, usize, &[u8])> {
    match bytes.split_first_chunk::<8>() {
        Some((&[a, b, c, d, e, f, g, h], rest)) => {
            let (first, second) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
            Ok((first as usize, second as usize, rest))
        }
        None => Err(broken(format!("its list ends after {} of 8 bytes", bytes.len()))),
    }
}
