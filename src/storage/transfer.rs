//! From one file to another by the fastest way that both of them can.
//!
//! ```text
//!   share the blocks ─▶ let the system copy ─▶ read and write
//! ```
//!
//! What the system refuses, whatever the reason, is read and written instead: that works on every file system, and if it
//! does not, its fault says best what is wrong. Nothing is remembered from one call to the next; a refusal is cheap.

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::error::{Context, Result};
use crate::storage::Copied;
use crate::storage::Storage;
use crate::storage::os;
use crate::units::byte_range;

/// Read and written at once.
const PIECE: u64 = 1 << 20;

/// What the system offers between two files.
pub(super) trait Offers {
    /// Makes the files share `from` of the one at `to` of the other: all of it or nothing.
    fn share(&self, from: &Range<u64>, to: u64) -> io::Result<()>;
    /// Copies a first part of `from`; says how many bytes.
    fn copy(&self, from: &Range<u64>, to: u64) -> io::Result<u64>;
}

/// From the first of two files to the second.
impl Offers for (&File, &File) {
    fn share(&self, from: &Range<u64>, to: u64) -> io::Result<()> {
        os::share_blocks(self.0, from.clone(), self.1, to)
    }

    fn copy(&self, from: &Range<u64>, to: u64) -> io::Result<u64> {
        os::copy_range(self.0, from.clone(), self.1, to)
    }
}

/// Copies `from` of `source` to `offset` of `target` as far as `offers` go, the rest through memory.
pub(super) fn by_system<S: Storage + ?Sized>(
    offers: &dyn Offers,
    target: &S,
    offset: u64,
    source: &dyn Storage,
    from: Range<u64>,
) -> Result<Copied> {
    byte_range(offset, from.end.saturating_sub(from.start))?;
    if from.is_empty() || offers.share(&from, offset).is_ok() {
        return Ok(Copied::Shared);
    }
    let mut rest = from.clone();
    while !rest.is_empty() {
        match offers.copy(&rest, offset + (rest.start - from.start)) {
            Ok(n) if (1..=rest.end - rest.start).contains(&n) => rest.start += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    if rest.start == from.start {
        return through_memory(target, offset, source, from);
    }
    through_memory(target, offset + (rest.start - from.start), source, rest)?;
    Ok(Copied::BySystem)
}

/// Reads and writes. Parts that the source knows to be zeros are written like others.
pub(super) fn through_memory<S: Storage + ?Sized>(
    target: &S,
    offset: u64,
    source: &dyn Storage,
    from: Range<u64>,
) -> Result<Copied> {
    let len = from.end.saturating_sub(from.start);
    byte_range(offset, len)?;
    let mut bytes = vec![0; usize::try_from(len.min(PIECE)).unwrap_or(0)];
    let mut done = 0;
    while done < len {
        let piece = usize::try_from(len - done).unwrap_or(usize::MAX).min(bytes.len());
        let piece = bytes.get_mut(..piece).unwrap_or_default();
        source.read_at(piece, from.start + done)?;
        target
            .write_at(piece, offset + done)
            .context(|| format!("copying {} to {}", source.label(), target.label()))?;
        done += piece.len() as u64;
    }
    Ok(Copied::ThroughMemory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use crate::error::ErrorKind;
    use crate::storage::memory::MemoryStorage;

    /// A system that answers as it was told to: `Ok` with so many bytes really copied, or an error number.
    struct Scripted<'a> {
        source: &'a MemoryStorage,
        target: &'a MemoryStorage,
        share: Option<i32>,
        copies: RefCell<VecDeque<Result<u64, i32>>>,
    }

    impl Scripted<'_> {
        fn really(&self, from: &Range<u64>, to: u64, len: u64) {
            let mut bytes = vec![0; len as usize];
            self.source.read_at(&mut bytes, from.start).unwrap();
            self.target.write_at(&bytes, to).unwrap();
        }
    }

    impl Offers for Scripted<'_> {
        fn share(&self, from: &Range<u64>, to: u64) -> io::Result<()> {
            match self.share {
                Some(number) => Err(io::Error::from_raw_os_error(number)),
                None => {
                    self.really(from, to, from.end - from.start);
                    Ok(())
                }
            }
        }

        fn copy(&self, from: &Range<u64>, to: u64) -> io::Result<u64> {
            match self.copies.borrow_mut().pop_front().expect("a call that the script knows") {
                Ok(n) => {
                    self.really(from, to, n.min(from.end - from.start));
                    Ok(n)
                }
                Err(number) => Err(io::Error::from_raw_os_error(number)),
            }
        }
    }

    const LEN: u64 = 3_000_000;

    /// Copies all but the ends; whatever the system said, the bytes are right and nothing around them changed.
    fn outcome(share: Option<i32>, copies: &[Result<u64, i32>]) -> Copied {
        let bytes: Vec<u8> = (0..LEN).map(|i| (i * 7 + i / 256) as u8 | 1).collect();
        let source = MemoryStorage::new("source", bytes.clone());
        let target = MemoryStorage::new("target", vec![0; LEN as usize]);
        let copies = RefCell::new(copies.iter().copied().collect());
        let system = Scripted { source: &source, target: &target, share, copies };
        let copied = by_system(&system, &target, 600, &source, 500..LEN - 1000).unwrap();
        assert!(system.copies.borrow().is_empty(), "every answer of the script was asked for");
        let found = target.snapshot();
        assert_eq!(found.len() as u64, LEN);
        assert!(found[600..LEN as usize - 900] == bytes[500..LEN as usize - 1000]);
        assert!(found[..600].iter().chain(&found[LEN as usize - 900..]).all(|byte| *byte == 0));
        copied
    }

    #[test]
    fn whatever_the_system_refuses_the_bytes_arrive() {
        assert_eq!(outcome(None, &[]), Copied::Shared);
        let refusals = [
            libc::EXDEV,
            libc::EOPNOTSUPP,
            libc::EINVAL,
            libc::ENOSYS,
            libc::ENOTTY,
            libc::EPERM,
            libc::EIO,
            libc::EBADF,
            libc::ETXTBSY,
            libc::ENOSPC,
        ];
        for number in refusals {
            assert_eq!(outcome(Some(number), &[Ok(LEN - 1500)]), Copied::BySystem, "{number}");
            assert_eq!(outcome(Some(number), &[Err(number)]), Copied::ThroughMemory, "{number}");
            let half_way = [Ok(1), Ok(1_500_000), Err(libc::EINTR), Ok(7), Err(number)];
            assert_eq!(outcome(Some(number), &half_way), Copied::BySystem, "{number}");
        }
        let refused = Some(libc::EOPNOTSUPP);
        assert_eq!(outcome(refused, &[Ok(0)]), Copied::ThroughMemory, "nothing copied is no progress");
        assert_eq!(outcome(refused, &[Ok(100_000), Ok(0)]), Copied::BySystem);
        assert_eq!(outcome(refused, &[Ok(u64::MAX)]), Copied::ThroughMemory, "more than there was is a lie");
    }

    #[test]
    fn a_source_that_ends_too_early_is_an_error() {
        let (source, target) = (MemoryStorage::new("s", vec![1; 1000]), MemoryStorage::new("t", Vec::new()));
        let fault = through_memory(&target, 0, &source, 500..1001).unwrap_err();
        assert_eq!(fault.kind(), ErrorKind::EndOfFile);
        assert_eq!(
            through_memory(&target, u64::MAX - 5, &source, 0..10).unwrap_err().kind(),
            ErrorKind::OutOfRange
        );
    }
}
