//! Reading ahead of a storage in memory that holds its transfers back, or fails them.

use std::sync::Barrier;

use super::*;
use crate::error::Error;
use crate::error::ErrorKind;

#[derive(Debug, Default, PartialEq)]
enum Manner {
    #[default]
    AtOnce,
    Held,
    Failing,
    Never,
}

type Held = (Transfer, u64, Finish);

#[derive(Default)]
struct Slow {
    bytes: Mutex<Vec<u8>>,
    manner: Mutex<Manner>,
    held: Mutex<Vec<Held>>,
    started: Mutex<u32>,
    direct: Mutex<u32>,
    /// What a direct read takes at least.
    takes: Mutex<Duration>,
    /// Direct reads wait for each other.
    pairs: Mutex<Option<Arc<Barrier>>>,
}

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slow")
    }
}

impl Slow {
    fn new() -> Arc<Slow> {
        let bytes = (0..3_000_001_u32).map(|i| (i / 512 * 31 + i).to_le_bytes()[0]).collect();
        Arc::new(Slow { bytes: Mutex::new(bytes), ..Slow::default() })
    }

    fn fill(&self, transfer: &mut Transfer, offset: u64) {
        if let Some(buf) = transfer.to_fill() {
            let at = offset as usize;
            buf.copy_from_slice(&self.bytes.lock()[at..at + buf.len()]);
        }
    }
}

impl Storage for Slow {
    fn size(&self) -> Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        *self.direct.lock() += 1;
        let pairs = self.pairs.lock().clone();
        pairs.iter().for_each(|pairs| _ = pairs.wait());
        let (begin, takes) = (Instant::now(), *self.takes.lock());
        while begin.elapsed() < takes {
            std::thread::yield_now();
        }
        let at = offset as usize;
        buf.copy_from_slice(&self.bytes.lock()[at..at + buf.len()]);
        Ok(())
    }

    fn start(&self, mut transfer: Transfer, offset: u64, finish: Finish) -> Option<(Transfer, Finish)> {
        *self.started.lock() += 1;
        match *self.manner.lock() {
            Manner::Never => return Some((transfer, finish)),
            Manner::Held => {
                self.fill(&mut transfer, offset); // what was there when it was asked
                self.held.lock().push((transfer, offset, finish));
            }
            Manner::AtOnce => {
                self.fill(&mut transfer, offset);
                finish(transfer, Ok(()));
            }
            Manner::Failing => finish(transfer, Err(Error::new(ErrorKind::Io, "on purpose"))),
        }
        None
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.bytes.lock()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn label(&self) -> String {
        String::from("slow")
    }
}

fn read_all(ahead: &ReadAhead, slow: &Slow, step: usize) {
    let whole = slow.bytes.lock().clone();
    for (i, expected) in whole.chunks(step).enumerate() {
        let mut buf = vec![0; expected.len()];
        ahead.read_at(&mut buf, (i * step) as u64).unwrap();
        assert!(buf == expected, "piece {i} of {step} bytes");
    }
}

#[test]
fn pieces_in_a_row_are_served_from_few_large_reads() {
    for step in [512, 4096, 5000, 65536, 256 << 10] {
        let slow = Slow::new();
        read_all(&ReadAhead::new(slow.clone()), &slow, step);
        assert_eq!(*slow.direct.lock(), 1, "{step}");
        assert!(*slow.started.lock() <= 13);
    }
}

#[test]
fn long_pieces_are_read_ahead_of_where_they_take_long() {
    for step in [1 << 20, 384 << 10, 1_000_000] {
        let slow = Slow::new();
        *slow.takes.lock() = Duration::from_millis(3);
        read_all(&ReadAhead::new(slow.clone()), &slow, step);
        assert!(*slow.direct.lock() <= 2, "{step}: the third in a row was read ahead");
        assert!(*slow.started.lock() > 0, "{step}");
    }
}

#[test]
fn long_pieces_of_readers_at_the_same_time_are_not_read_ahead_of() {
    const STEP: usize = 512 << 10;
    let slow = Slow::new();
    slow.bytes.lock().resize(16 * STEP, 1);
    *slow.takes.lock() = Duration::from_millis(2);
    *slow.pairs.lock() = Some(Arc::new(Barrier::new(2)));
    let ahead = ReadAhead::new(slow.clone());
    std::thread::scope(|scope| {
        for first in [0, STEP] {
            let ahead = &ahead;
            scope.spawn(move || {
                for at in (first..16 * STEP).step_by(2 * STEP) {
                    ahead.read_at(&mut vec![0; STEP], at as u64).unwrap();
                }
            });
        }
    });
    assert_eq!((*slow.direct.lock(), *slow.started.lock()), (16, 0));
}

#[test]
fn whoever_reads_elsewhere_meanwhile_does_not_end_a_row() {
    let slow = Slow::new();
    let ahead = ReadAhead::new(slow.clone());
    let whole = slow.bytes.lock().clone();
    let read = |at: usize| {
        let mut buf = vec![0; 512];
        ahead.read_at(&mut buf, at as u64).unwrap();
        assert!(buf == whole[at..at + 512], "{at}");
    };
    read(0);
    *slow.manner.lock() = Manner::Held;
    std::thread::scope(|scope| {
        scope.spawn(|| read(512)); // waits for a chunk
        while slow.held.lock().is_empty() {
            std::thread::yield_now();
        }
        read(2_000_000);
        *slow.manner.lock() = Manner::AtOnce;
        let held = std::mem::take(&mut *slow.held.lock());
        held.into_iter().for_each(|(transfer, _, finish)| finish(transfer, Ok(())));
    });
    (2..40).for_each(|i| read(i * 512));
    assert_eq!(*slow.direct.lock(), 2, "the first of the row and the one elsewhere");
}

#[test]
fn pieces_longer_than_that_are_never_read_ahead() {
    let slow = Slow::new();
    let step = LONG + 1;
    slow.bytes.lock().resize(4 * step, 1);
    *slow.takes.lock() = Duration::from_millis(12);
    read_all(&ReadAhead::new(slow.clone()), &slow, step);
    assert_eq!((*slow.direct.lock(), *slow.started.lock()), (4, 0));
}

#[test]
fn pieces_that_are_not_in_a_row_start_nothing() {
    let slow = Slow::new();
    let ahead = ReadAhead::new(slow.clone());
    for i in (0..40).rev() {
        ahead.read_at(&mut [0; 512], i * 512).unwrap();
    }
    assert_eq!((*slow.started.lock(), *slow.direct.lock()), (0, 40));
}

#[test]
fn what_was_written_is_read() {
    let slow = Slow::new();
    let ahead = ReadAhead::new(slow.clone());
    for i in 0..4_u64 {
        ahead.read_at(&mut [0; 512], i * 512).unwrap();
    }
    ahead.write_at(&[7; 512], 2048).unwrap();
    let mut buf = [0; 512];
    ahead.read_at(&mut buf, 2048).unwrap();
    assert_eq!(buf, [7; 512]);
    slow.bytes.lock()[2560..3072].fill(8); // by somebody else
    ahead.flush().unwrap();
    ahead.read_at(&mut buf, 2560).unwrap();
    assert_eq!(buf, [8; 512]);
}

#[test]
fn a_chunk_that_was_on_its_way_during_a_write_is_not_served() {
    let slow = Slow::new();
    let ahead = ReadAhead::new(slow.clone());
    let mut buf = [0; 512];
    ahead.read_at(&mut buf, 0).unwrap();
    *slow.manner.lock() = Manner::Held;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut buf = [0; 1024];
            ahead.read_at(&mut buf, 512).unwrap(); // waits for a chunk that holds old bytes
        });
        while slow.held.lock().is_empty() {
            std::thread::yield_now();
        }
        ahead.write_at(&[9; 1024], 512).unwrap();
        // The reader ran at the same time and got old or new bytes; it may have asked for the chunk once more since.
        while !reader.is_finished() {
            let held = std::mem::take(&mut *slow.held.lock());
            held.into_iter().for_each(|(transfer, _, finish)| finish(transfer, Ok(())));
            std::thread::yield_now();
        }
    });
    let held = std::mem::take(&mut *slow.held.lock());
    held.into_iter().for_each(|(transfer, _, finish)| finish(transfer, Ok(())));
    ahead.read_at(&mut buf, 1024).unwrap();
    assert_eq!(buf, [9; 512]);
}

#[test]
fn a_started_write_counts_until_it_is_over() {
    let slow = Slow::new();
    let ahead = ReadAhead::new(slow.clone());
    *slow.manner.lock() = Manner::Held;
    assert!(ahead.start(Transfer::Write(&[1; 512]), 0, Box::new(|_, _| ())).is_none());
    for i in 0..8 {
        ahead.read_at(&mut [0; 512], i * 512).unwrap();
    }
    assert_eq!(*slow.started.lock(), 1);
    let (transfer, _, finish) = slow.held.lock().pop().unwrap();
    finish(transfer, Ok(()));
    *slow.manner.lock() = Manner::AtOnce;
    ahead.read_at(&mut [0; 512], 8 * 512).unwrap();
    assert!(*slow.started.lock() > 1);
    *slow.manner.lock() = Manner::Never;
    assert!(ahead.start(Transfer::Write(&[1; 512]), 0, Box::new(|_, _| ())).is_some());
    assert_eq!(ahead.shared.state.lock().writes, 0);
}

#[test]
fn whoever_cannot_read_ahead_is_read_directly() {
    for manner in [Manner::Failing, Manner::Never] {
        let slow = Slow::new();
        *slow.manner.lock() = manner;
        read_all(&ReadAhead::new(slow.clone()), &slow, 65536);
        assert_eq!(*slow.direct.lock(), 46);
    }
}
