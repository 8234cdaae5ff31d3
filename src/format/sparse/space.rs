//! Where new grains go: the end of the file, which is made longer in large steps and reads as zeros there.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::units::SECTOR;
use crate::units::align_up;

/// The unused part of the file. Pure bookkeeping: whoever owns it makes the file longer.
#[derive(Debug)]
pub(super) struct Space {
    grain: u64,
    /// Where the next grain goes.
    next: u64,
    /// Length of the file.
    grown: u64,
    /// From here on nothing has ever been written.
    virgin: u64,
    /// Growing past this in advance is of no use: every grain of the extent has a place before it.
    enough: u64,
    step: u64,
    /// Grains given back that are not at the end.
    spare: Vec<u64>,
}

/// Space for grains that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub offset: u64,
    pub grains: u64,
    /// It reads as zeros.
    pub zeroed: bool,
}

/// What came of asking for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Granted(Grant),
    /// The file must first have at least the length `needed`, better `wanted`.
    Grow {
        needed: u64,
        wanted: u64,
    },
}

/// Entries are sector numbers of 32 bits.
const FILE_LIMIT: u64 = (1 << 32) * SECTOR;
const FIRST_STEP: u64 = 16 << 20;
const LARGEST_STEP: u64 = 64 << 20;
/// Grains given back that are remembered.
const SPARE: usize = 4096;

impl Space {
    /// The space behind `end`, the end of everything that is used, in a file of `size` bytes.
    pub fn new(grain: u64, end: u64, size: u64, grains: u64) -> Result<Self> {
        let next = align_up(end.max(size), grain)
            .ok_or_else(|| Error::new(ErrorKind::FileTooBig, format!("a file of {size} bytes")))?;
        let enough = next.saturating_add(grains.saturating_mul(grain));
        Ok(Self { grain, next, grown: size, virgin: next, enough, step: FIRST_STEP, spare: Vec::new() })
    }

    /// Asks for up to `grains` grains.
    pub fn take(&mut self, grains: u64) -> Result<Answer> {
        if grains == 1
            && let Some(offset) = self.spare.pop()
        {
            return Ok(Answer::Granted(Grant { offset, grains, zeroed: false }));
        }
        let fitting = FILE_LIMIT.saturating_sub(self.next) / self.grain;
        let grains = grains.min(fitting);
        if grains == 0 {
            let text = format!("a sparse file cannot hold more than {FILE_LIMIT} bytes");
            return Err(Error::new(ErrorKind::FileTooBig, text));
        }
        let end = self.next + grains * self.grain;
        if end > self.grown {
            let wanted = (self.next + self.step).min(self.enough).min(FILE_LIMIT).max(end);
            return Ok(Answer::Grow { needed: end, wanted });
        }
        let grant = Grant { offset: self.next, grains, zeroed: self.next >= self.virgin };
        self.next = end;
        Ok(Answer::Granted(grant))
    }

    /// The file has this length; what was added reads as zeros.
    pub fn grew(&mut self, size: u64) {
        self.grown = size;
        self.step = (self.step * 2).min(LARGEST_STEP);
    }

    /// Takes back what was granted and may have been written to.
    pub fn give_back(&mut self, grant: Grant) {
        let end = grant.offset + grant.grains * self.grain;
        self.virgin = self.virgin.max(end);
        if end == self.next {
            self.next = grant.offset;
            return;
        }
        for i in 0..grant.grains {
            if self.spare.len() < SPARE {
                self.spare.push(grant.offset + i * self.grain);
            }
        }
    }

    /// The length the file should be left with, if it is longer than that.
    pub fn excess(&self) -> Option<u64> {
        (self.grown > self.next).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: u64 = 65536;

    fn granted(space: &mut Space, grains: u64) -> Grant {
        loop {
            match space.take(grains).unwrap() {
                Answer::Granted(grant) => return grant,
                Answer::Grow { needed, wanted } => {
                    assert!(needed <= wanted);
                    space.grew(wanted);
                }
            }
        }
    }

    #[test]
    fn grains_follow_each_other_behind_the_end() {
        let mut space = Space::new(G, 100, G + 1, 1000).unwrap();
        assert_eq!(granted(&mut space, 3), Grant { offset: 2 * G, grains: 3, zeroed: true });
        assert_eq!(granted(&mut space, 1), Grant { offset: 5 * G, grains: 1, zeroed: true });
        assert_eq!(space.excess(), Some(6 * G));
    }

    #[test]
    fn space_given_back_is_used_again_but_is_not_zeroed() {
        let mut space = Space::new(G, 0, G, 1000).unwrap();
        let (a, b) = (granted(&mut space, 2), granted(&mut space, 1));
        space.give_back(a);
        assert!(!granted(&mut space, 1).zeroed);
        space.give_back(b);
        assert_eq!(granted(&mut space, 2), Grant { offset: b.offset, grains: 2, zeroed: false });
        assert!(granted(&mut space, 1).offset < b.offset, "the other spare grain");
        assert!(granted(&mut space, 1).zeroed);
    }

    #[test]
    fn the_file_stays_below_two_tebibytes() {
        let mut space = Space::new(G, FILE_LIMIT - 3 * G, FILE_LIMIT - 3 * G, 1 << 40).unwrap();
        assert_eq!(granted(&mut space, 10).grains, 3);
        assert_eq!(space.take(1).unwrap_err().kind(), ErrorKind::FileTooBig);
    }
}
